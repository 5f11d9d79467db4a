"""What a file really is: its own structure, parsed, never a search for a magic word.

    inspect ── source    bytes on a budget, so that no file keeps a worker busy
       ├─ png jpeg gif webp · iso_images (HEIC, HEIF, AVIF) ── exif, iso_boxes
       ├─ iso_movies (MP4, MOV, M4A) · webm · mpeg_audio (MP3, AAC) · wav · ogg
       ├─ pdf · text · archive (ZIP) · office (DOCX, XLSX, PPTX) · old_office (DOC, XLS)
       ├─ tail      what follows the end, the same for every format
       └─ identify  what a refused file is

What everyday programs write is accepted, also where it bends its specification as every reader
allows; what hides as another type is refused. Nothing is decoded, so 250 megapixels cost what
one costs.

Some files that a program opens are refused on purpose. Of 15,000 real ones they are one in 700:

- A film or recording that was cut: its boxes or clusters run past its end. Players show what is
  left, but it is not what its owner thinks it is. A JPEG without an end mark is accepted once all
  of its blocks are counted (jpeg_scan); a progressive one cannot be counted.
- A picture with a web page, a program or an archive behind its end. Seven photographs, recovered
  from a browser's cache, have pages of that cache there; so has a page that hides.
- A CSV with a zero byte. Some parsers skip it; it is no text in any code page.
- A ZIP whose directory does not say where a file begins. Readers disagree about what it holds.

Libraries, measured over 15,000 real files of 47 public repositories (import time of a processor,
memory, disk), and why each was taken or not:

- olefile (12 ms, 0.3 MB): taken, in layers/media, imported for compound files only. Pure Python,
  BSD; it opens all 781 of them. What bounds its work is in old_office.
- zipfile (16 ms): not taken. Quadratic in extra fields; refuses names that other readers show.
- Pillow (17 ms, 22 MB), pillow-heif (42 ms, 9 MB of memory, 26 MB): not taken. Native code on
  strangers' bytes, for what EXIF's one tag and a walk over boxes say without decoding. Both are
  oracles in the tests. Over 5,700 files their sizes were ours, but for AVIF's clean aperture,
  which Pillow leaves out, and one broken HEIC grid.
- mutagen (21 ms): not taken. GPL; reads 556 of 576 films and sounds that play here.
- tinytag (2 ms): not taken. Reads 560 of them, without a bound.
- defusedxml (10 ms): not taken. expat with the DOCTYPE refused is all of it that is needed.
- pypdf (87 ms, 16 MB), pikepdf (70 ms, 15 MB): not taken. Viewers open more than they do.
"""

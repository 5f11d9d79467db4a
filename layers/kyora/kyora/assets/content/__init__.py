"""What a file really is: its own structure, parsed, never a search for a magic word.

    verify ── source     bytes on a budget, so that no file keeps a worker busy
       ├─ png jpeg gif webp · iso_images (HEIC, HEIF, AVIF) ── exif, iso_boxes, jpeg_scan, jpeg_scan
       ├─ iso_movies (MP4, MOV, M4A) · webm · mpeg_audio (MP3, AAC) · wav · ogg
       ├─ pdf · text · archive (ZIP) · office (DOCX, XLSX, PPTX) · old_office (DOC, XLS)
       ├─ tail      what follows the end, the same for every format
       └─ identify  what a refused file is

What everyday programs write is accepted, even where it bends the specification, as long as every
reader allows it. A file that hides as another type is refused. Nothing is decoded, so 250
megapixels cost no more than one.

Files that some program opens and that are refused on purpose:

- A film or recording that was cut: its boxes or clusters run past its end. Players play what is
  left, but its owner has lost the rest. A JPEG without its end mark is accepted if all of its
  blocks are there (jpeg_scan); the blocks of a progressive one cannot be counted.
- A picture with a web page, a program or an archive behind its end. Seven real photographs,
  recovered from a browser's cache, have parts of that cache there. Nothing distinguishes them from
  a page that was hidden on purpose.
- A CSV with a NUL byte: it is binary in every code page, and parsers disagree about it.
- A ZIP whose directory does not say where a file begins: readers disagree about what it holds.

Libraries, measured over 15,000 real files of 47 public repositories (import time, memory, disk),
and why each was taken or not:

- olefile (12 ms, 0.3 MB): taken, in layers/media, imported for compound files only. Pure Python,
  BSD; it opens all 781 of them. What bounds its work is in old_office.
- zipfile (16 ms): not taken. Quadratic in extra fields; refuses names that other readers show.
- Pillow (17 ms, 22 MB), pillow-heif (42 ms, 9 MB of memory, 26 MB): not taken. Native code on
  strangers' bytes, to learn what one EXIF tag and a walk over boxes say without decoding. Both are
  oracles in the tests. Over 5,700 files their sizes equal ours, except for AVIF's clean
  aperture, which Pillow ignores, and one broken HEIC grid.
- mutagen (21 ms): not taken. GPL; reads 556 of 576 films and sounds that play here.
- tinytag (2 ms): not taken. Reads 560 of them, without a bound.
- defusedxml (10 ms): not taken. refusing a DOCTYPE in expat is all that we need of it.
- pypdf (87 ms, 16 MB), pikepdf (70 ms, 15 MB): not taken. Viewers open more than they do.
"""

"""What is copied from another project is that project's file, byte for byte."""

import hashlib

from local.settings import ROOT

LIT = ROOT / "local" / "web" / "static" / "console" / "vendor" / "lit-html"
# lit-html 3.3.3, from its npm archive.
DIGESTS = {
    "directive-helpers.js": "f7fb1154b8f72ed2cc08b05eaeed71c99270e9ad2d48620ed24688a1af4c2b62",
    "directive.js": "3344c4f41c69cd0701d3937e8f9ef90bd845614bf6456d0b8314b7c51d415b9d",
    "directives/live.js": "b305f9066319d838db797abd5a4d871537277e25f35332702bfce4452c020ecf",
    "directives/repeat.js": "083140026ecd8665fedd15b17769f9d516252a9f1502f1e91e6967686ee82626",
    "lit-html.js": "b878e7f95dec8a9b6e9b217faca6b6a11bad82ebc44c0caa77419ed83edd81f2",
}


def test_lit_html_is_release_3_3_3_unchanged() -> None:
    found = {
        str(path.relative_to(LIT)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in LIT.rglob("*.*")
    }
    assert found == DIGESTS
    assert "BSD 3-Clause" in (LIT / "LICENSE").read_text()

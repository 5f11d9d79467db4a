"""`make emails`: every mail in both languages, light and dark, at two widths, on one page."""

import json
import sys
import webbrowser
from pathlib import Path

from kyora.email.mails.catalogue import LOCALES, MAILS
from kyora.email.render import render
from local.tools.email_samples import MESSAGE_ID, SAMPLES, SETTINGS, sample

ROOT = Path(__file__).resolve().parents[2]
_PAGE = ROOT / "local" / "web" / "static" / "emails.html"


def mails() -> list[dict[str, str]]:
    """Render every template with every sample in every language."""
    found = []
    for template_id, mail in MAILS.items():
        for locale in LOCALES:
            for kind in SAMPLES:
                data = sample(template_id, locale, kind)
                made = render(template_id, locale, data, message_id=MESSAGE_ID, settings=SETTINGS)
                found.append(
                    {
                        "template": template_id,
                        "event": mail.event.__name__,
                        "locale": locale,
                        "sample": kind,
                        **made._asdict(),
                    }
                )
    return found


def write(folder: Path) -> Path:
    """Write the gallery into a folder and return its page."""
    folder.mkdir(parents=True, exist_ok=True)
    # Only these characters could end the script element or open another one.
    data = json.dumps(mails(), ensure_ascii=False)
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    page = folder / "index.html"
    page.write_text(_PAGE.read_text().replace("/*MAILS*/[]", data))
    return page


def main() -> int:
    """Write the gallery, say where it is, open it where there is a screen."""
    page = write(ROOT / ".local" / "emails")
    print(f"{len(MAILS)} mails in {len(LOCALES)} languages: {page}")
    if sys.stdout.isatty():
        webbrowser.open(page.as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())

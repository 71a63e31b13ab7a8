"""The pictures of the docs are of the page as it is: told by what they were taken of, without a browser."""

from __future__ import annotations

import json

from tools.pictures import IMAGES, PICTURES, TAKEN_OF, shown, taken_of


async def test_the_pictures_of_the_docs_are_of_the_page_as_it_is() -> None:
    async with shown() as address:
        now = await taken_of(address)

    before = json.loads(TAKEN_OF.read_text())
    changed = {
        name: [what for what, digest in facts.items() if before.get(name, {}).get(what) != digest]
        for name, facts in now.items()
    }
    assert {name: what for name, what in changed.items() if what} == {}, "take them anew: make screenshots"


def test_every_picture_is_shown_and_known() -> None:
    docs = "".join(page.read_text() for page in IMAGES.parent.glob("*.md"))

    assert {path.stem for path in IMAGES.glob("*.png")} == PICTURES.keys()
    assert all(f"(images/{name}.png)" in docs for name in PICTURES)

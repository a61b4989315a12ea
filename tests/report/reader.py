"""Reads a page as a browser's parser would, and finds what is left open."""

from html.parser import HTMLParser

_VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """Elements as (tag, attributes), text by its element, and whether every element is closed in its turn."""

    def __init__(self):
        super().__init__()
        self.elements, self.words, self.open, self.errors = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) < len(attrs):
            self.errors.append(f"an attribute twice in {tag}")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"{tag} is closed out of its turn at {self.getpos()}")

    def handle_data(self, data):
        self.words.append((self.open[-1] if self.open else "", data))

    @property
    def tags(self):
        return [tag for tag, _ in self.elements]

    @property
    def text(self):
        return " ".join(" ".join(data.split()) for tag, data in self.words if tag != "style" and data.strip())

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.errors == []
    assert reader.open == []
    return reader

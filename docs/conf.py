"""Sphinx settings. The reference and the tables of keys are made by `reference.py` beside this."""

import sys
from pathlib import Path

import sphinx.util.logging
from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

import threadko

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS)]
import reference  # noqa: E402 (the path comes first)

LOG = sphinx.util.logging.getLogger(__name__)

project = "threadko"
release = version = threadko.__version__
copyright = "the authors of threadko"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.doctest"]
exclude_patterns = ["_build"]
root_doc = "index"
language = "en"

html_theme = "furo"
html_title = f"threadko {version}"
html_static_path: list[str] = []
html_copy_source = False

default_role = "code"
add_module_names = False
autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": True}
# A short type names several things, an ``Exchange`` its ``type`` for one.
suppress_warnings = ["ref.python"]
napoleon_numpy_docstring = False
doctest_global_setup = f"import sys; sys.path.insert(0, {str(DOCS.parent / 'examples')!r})"


def count_documented(app, exception):
    """Print how much is documented; each name that is not is a warning, and so an error."""
    if exception or app.builder.name != "html":
        return
    public = reference.find_public()
    known = {name for name, *_ in app.env.get_domain("py").get_objects()}
    missing = reference.find_undocumented(public, known)
    for name in missing:
        LOG.warning("public, and without a docstring or not in the reference: %s", name)
    done = len(public) - len(missing)
    print(f"documented: {done} of {len(public)} public names, {100 * done // len(public)} %")


def point_at_pages(app, doctree):
    """Let links to ``page.rst``, which work wherever the source is shown, lead to the pages here.

    Tables of contents within a page go: the theme shows one beside each.
    """
    for topic in list(doctree.findall(nodes.topic)):
        if "contents" in topic["classes"]:
            topic.parent.remove(topic)
    for link in list(doctree.findall(nodes.reference)):
        page, _, anchor = link.get("refuri", "").partition("#")
        if ":" in page or not page.endswith(".rst"):
            continue
        target = addnodes.pending_xref(
            "",
            nodes.inline("", link.astext()),
            refdomain="std",
            reftype="doc",
            refdoc=app.env.docname,
            reftarget=page.removesuffix(".rst"),
            refexplicit=True,
            refwarn=True,
        )
        if anchor:
            LOG.warning("a link into a page is lost: %s#%s", page, anchor, location=link)
        link.replace_self(target)


class Keys(SphinxDirective):
    """``.. keys:: SECTION`` is the table of the keys of a section, made from `keys.py`."""

    required_arguments = 1

    def run(self):
        """Return the table."""
        return self.parse_text_to_nodes(reference.make_key_table(self.arguments[0]))


def setup(app):
    """Register what is above."""
    app.add_directive("keys", Keys)
    app.connect("builder-inited", lambda app: reference.write_pages(DOCS / "api"))
    app.connect("doctree-read", point_at_pages)
    app.connect("build-finished", count_documented)

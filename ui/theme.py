"""How the page looks: colours for light and dark, and the style sheet of the gallery.

Rule: colours come from the theme, so that light and dark follow one another; the style sheet sets places and sizes, and
selects by our own keys, and by the classes that Streamlit gives to each kind of element.
"""

from ui.keys import Key
from ui.texts import UPLOAD_MB

LIGHT = {
    "primaryColor": "#1f6f5c",
    "backgroundColor": "#ffffff",
    "secondaryBackgroundColor": "#f3f5f4",
    "textColor": "#1b2220",
    "borderColor": "#dfe4e2",
}
DARK = {
    "primaryColor": "#58b69c",
    "backgroundColor": "#131716",
    "secondaryBackgroundColor": "#1d2321",
    "textColor": "#e6ebe9",
    "borderColor": "#313a37",
}
SHARED = {
    "theme.baseRadius": "8px",
    "theme.buttonRadius": "8px",
    "theme.baseFontSize": 15,
    "theme.headingFontSizes": ["1.6rem", "1.25rem", "1.05rem"],
    "theme.headingFontWeights": [650, 600, 600],
    "theme.showWidgetBorder": True,
}


def list_theme_options() -> dict[str, object]:
    """The theme as Streamlit's settings."""
    light = {f"theme.light.{name}": value for name, value in LIGHT.items()}
    dark = {f"theme.dark.{name}": value for name, value in DARK.items()}
    return {**SHARED, **light, **dark}


# Drawn here: Streamlit would fetch a named icon for the browser's tab from the network.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1f6f5c"/>'
    '<path d="M4 16q12-14 24 0q-12 14-24 0z" fill="#fff"/><circle cx="16" cy="16" r="5" fill="#1f6f5c"/></svg>'
)

ACCENT = "#2f8a73"
"""Seen on light and on dark ground alike."""
LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 108 32">'
    f'<rect width="32" height="32" rx="7" fill="{ACCENT}"/><path d="M4 16q12-14 24 0q-12 14-24 0z" fill="#fff"/>'
    f'<circle cx="16" cy="16" r="5" fill="{ACCENT}"/>'
    f'<text x="40" y="24" font-family="sans-serif" font-size="24" font-weight="600" fill="{ACCENT}">seer</text></svg>'
)

GALLERY, RAIL, QUERY = f".st-key-{Key.GALLERY}", f".st-key-{Key.RAIL}", f".st-key-{Key.QUERY}"
FOOTER, LARGE, CONTROLS = f".st-key-{Key.FOOTER}", f".st-key-{Key.LARGE}", f".st-key-{Key.CONTROLS}"
FRAME = '[data-testid="stFullScreenFrame"] > div'
SIMILAR, OPEN = '[class*="st-key-similar-"]', '[class*="st-key-open-"]'
STYLE = f"""<style>
/* The page: as wide as a gallery, without the empty band that a document has. */
.stMainBlockContainer {{ padding: 4.75rem 2.25rem 1.5rem; max-width: 112rem; }}

/* A card: a quiet square of one size for every picture, the whole picture in it. */
{GALLERY} .stGridCell {{ position: relative; }}
{GALLERY} .stGridCell .stVerticalBlock {{ gap: 0.3rem; }}
{GALLERY} .stElementToolbar, {QUERY} .stElementToolbar, {LARGE} .stElementToolbar {{ display: none; }}
{GALLERY} :is({FRAME}, .stImage, [data-testid="stImageContainer"]) {{ width: 100%; }}
{GALLERY} img {{
  width: 100% !important; aspect-ratio: 1; object-fit: contain; border-radius: 8px;
  background: color-mix(in srgb, currentColor 6%, transparent);
}}

/* The whole tile is the button that searches on; its words are for screen readers and for whoever hovers. */
{GALLERY} {SIMILAR} {{ position: absolute; inset: 0 0 auto 0; width: 100%; aspect-ratio: 1; z-index: 1; }}
{GALLERY} {SIMILAR} .stButton, {GALLERY} {SIMILAR} button {{ width: 100%; height: 100%; }}
{GALLERY} {SIMILAR} button {{
  background: transparent; border: 2px solid transparent; align-items: flex-end; padding: 0.4rem; border-radius: 8px;
}}
{GALLERY} {SIMILAR} button > * {{ opacity: 0; position: absolute; width: 1px; height: 1px; overflow: hidden; }}
{GALLERY} {SIMILAR} button:is(:hover, :focus-visible) {{ border-color: {ACCENT}; box-shadow: none; }}
{GALLERY} {SIMILAR} button:is(:hover, :focus-visible)::after {{
  content: "Find similar" / ""; padding: 0.1rem 0.6rem; border-radius: 1rem; font-size: 0.8rem;
  background: {ACCENT}; color: #fff;
}}

/* Under it how similar, and which file (its end tells copies apart); at the right the way to the original. */
{GALLERY} .stHorizontalBlock {{ flex-wrap: nowrap; min-height: 1.75rem; }}
{GALLERY} .stText {{ font-size: 0.85rem; color: color-mix(in srgb, currentColor 72%, transparent); }}
{GALLERY} .stVerticalBlock:has(> .stElementContainer > .stText) .stHorizontalBlock .stText {{
  color: inherit; font-weight: 600; font-variant-numeric: tabular-nums;
}}
{GALLERY} .stVerticalBlock > .stElementContainer:has(> .stText) {{ margin-top: -0.5rem; }}
{GALLERY} .stHorizontalBlock > :first-child {{ min-width: 0; }}
{GALLERY} {OPEN} {{ flex: none; }}
{GALLERY} {OPEN} button {{ border: none; background: transparent; padding: 0.1rem; min-height: 1.6rem; width: 1.6rem; }}
{GALLERY} {OPEN} [data-testid="stMarkdownContainer"] {{
  opacity: 0; position: absolute; width: 1px; height: 1px; overflow: hidden;
}}
{GALLERY} {OPEN} [data-testid="stIconMaterial"] {{ font-size: 1.05rem; opacity: 0.6; }}
{GALLERY} {OPEN} button:is(:hover, :focus-visible) [data-testid="stIconMaterial"] {{ opacity: 1; }}

/* What is searched from stays in sight beside a long answer. */
@media (min-width: 900px) {{
  .stColumn:has({RAIL}) {{ position: sticky; top: 4.5rem; align-self: flex-start; }}
}}
{QUERY} {{ gap: 0.4rem; }}
{QUERY} img {{ max-height: 22rem; object-fit: contain; }}
{QUERY} .stText {{ font-size: 0.85rem; color: color-mix(in srgb, currentColor 72%, transparent); }}
{QUERY} .stElementContainer:nth-child(2) .stText {{ font-weight: 600; color: inherit; }}
{LARGE} :is(.stElementContainer, [data-testid="stFullScreenFrame"], {FRAME}, .stImage) {{ width: 100%; }}
{LARGE} .stImage {{ justify-content: center; }}
{LARGE} img {{ max-height: 62vh; width: auto !important; object-fit: contain; }}
.st-key-{Key.COUNT} button {{ min-height: 2.5rem; }}
{RAIL} [data-testid="stFileUploaderDropzoneInstructions"] span {{ font-size: 0; }}
{RAIL} [data-testid="stFileUploaderDropzoneInstructions"] span::after {{
  content: "{UPLOAD_MB} MB at most; it stays on this computer"; font-size: 0.8rem; white-space: normal;
}}
{FOOTER} .stText {{ font-size: 0.8rem; color: color-mix(in srgb, currentColor 65%, transparent); }}
@media (max-width: 640px) {{
  .stMainBlockContainer {{ padding-left: 1rem; padding-right: 1rem; }}
  {QUERY} img {{ max-height: 14rem; }}
}}
</style>"""

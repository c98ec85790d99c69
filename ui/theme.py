"""How the page looks: colours for light and dark, and the style sheet of the gallery.

Rule: colours come from the theme, so that light and dark follow one another; the style sheet sets places and sizes, and
selects by our own keys, and by the classes that Streamlit gives to each kind of element.
"""

from ui.keys import Action, Key
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

ACCENT = "#2c846f"
"""Seen on light and on dark ground alike."""
LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 108 32">'
    f'<rect width="32" height="32" rx="7" fill="{ACCENT}"/><path d="M4 16q12-14 24 0q-12 14-24 0z" fill="#fff"/>'
    f'<circle cx="16" cy="16" r="5" fill="{ACCENT}"/>'
    f'<text x="40" y="24" font-family="sans-serif" font-size="24" font-weight="600" fill="{ACCENT}">seer</text></svg>'
)

MENU, TABLE = f".st-key-{Key.MENU}", f".st-key-{Key.TABLE}"
CARDS = f":is(.st-key-{Key.GALLERY}, .st-key-{Key.LARGE_GALLERY}) ul"
RAIL, QUERY = f".st-key-{Key.RAIL}", f".st-key-{Key.QUERY}"
FOOTER, LARGE, CONTROLS = f".st-key-{Key.FOOTER}", f".st-key-{Key.LARGE}", f".st-key-{Key.CONTROLS}"
FRAME = '[data-testid="stFullScreenFrame"] > div'
SIMILAR, OPEN = (f"{CARDS} button[name={action}]" for action in (Action.SIMILAR, Action.OPEN))
MAP = f".st-key-{Key.MAP} section"
GROUPS, COPIES = f".st-key-{Key.GROUPS} ul", f".st-key-{Key.DUPLICATES} div:has(> ul)"
PAIRS = f".st-key-{Key.TELL_APART} ul"
MORE, TRAY, PART = f"{CARDS} fieldset", f"[class*=st-key-{Key.TRAY}-]", f"[class*=st-key-{Key.PART}-][class*=-box]"
SIGNS = {Action.PLUS: "+", Action.MINUS: "\\2212", Action.FAVOURITE: "\\2661"}
"""What stands on the small buttons of a card: plus, minus, a heart."""
POINTED = "ul:not([data-pointer=rests]) :hover"
OPEN_MASK = (
    "url(\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='none' "
    "stroke='black' stroke-width='1.6'%3E%3Cpath d='M9 1h6v6M15 1L1 15M1 9v6h6'/%3E%3C/svg%3E\") center / contain"
)
"""Two arrows that draw apart: what it was in a size of its own."""
STYLE = f"""<style>
/* The page: as wide as a gallery, without the empty band that a document has. */
.stMainBlockContainer {{ padding: 3.75rem 2.25rem 1.5rem; max-width: 112rem; }}

/* The ways to the pages stand in the header, beside the name. */
{MENU} {{ position: fixed; top: 0; left: 7rem; z-index: 999990; width: auto; height: 3.75rem; align-items: center; }}
{MENU} p {{ white-space: nowrap; }}
.st-key-{Key.COLLECTIONS} {{ max-width: 24rem; }}
@media (min-width: 1100px) {{
  .st-key-{Key.COLLECTIONS} {{
    position: fixed; top: 0; right: 4rem; z-index: 999990; width: 14rem; height: 3.75rem; justify-content: center;
  }}
}}

/* A card: a quiet square of one size for every picture, the whole picture in it. */
{CARDS} {{
  display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 1rem; margin: 0; padding: 0;
}}
{CARDS} li {{ list-style: none; margin: 0; min-width: 0; font-size: 0.85rem; }}
{CARDS} button {{ padding: 0; border: none; background: transparent; color: inherit; cursor: pointer; }}
{CARDS} img {{
  display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 8px;
  background: color-mix(in srgb, currentColor 6%, transparent);
}}
.stElementToolbar:is({QUERY} *, {LARGE} *) {{ display: none; }}

/* The whole tile is the button that searches on. */
{SIMILAR} {{ position: relative; display: block; width: 100%; border-radius: 8px; }}
{SIMILAR}:is({POINTED}, :focus-visible) {{ outline: 2px solid {ACCENT}; outline-offset: -2px; }}
{SIMILAR}:is({POINTED}, :focus-visible)::after {{
  content: "Find similar" / ""; position: absolute; left: 50%; bottom: 0.5rem; transform: translateX(-50%);
  padding: 0.15rem 0.7rem; border-radius: 1rem; font-size: 0.8rem; white-space: nowrap;
  background: {ACCENT}; color: #fff;
}}

/* On it, when it is pointed at: more like this, less like this, favourite. */
{CARDS} li {{ position: relative; content-visibility: auto; contain-intrinsic-size: auto 15rem; }}
{MORE} {{
  position: absolute; top: 0.4rem; right: 0.4rem; display: flex; gap: 0.3rem; opacity: 0;
  min-width: 0; margin: 0; padding: 0; border: none;
}}
{CARDS} li:focus-within fieldset, {CARDS}:not([data-pointer=rests]) li:hover fieldset {{ opacity: 1; }}
{MORE} button {{
  width: 1.8rem; height: 1.8rem; border-radius: 50%; color: #fff; background: rgb(0 0 0 / 65%); font-size: 1rem;
  line-height: 1;
}}
{MORE} button:is(:hover, :focus-visible) {{ background: {ACCENT}; outline: 2px solid #fff; }}
{"".join(f'{MORE} button[name={name}]::before {{ content: "{sign}" / ""; }}' for name, sign in SIGNS.items())}
{MORE} button[aria-pressed=true]::before {{ content: "\\2665" / ""; color: #ff8fa3; }}
{CARDS} li:has([aria-pressed=true]) fieldset {{ opacity: 1; }}
{CARDS} li:has([aria-pressed=true]):not(:focus-within, :hover) fieldset button:not([aria-pressed=true]) {{
  display: none;
}}
@media (hover: none) {{ {MORE} {{ opacity: 1; }} }}
{CARDS} em {{ font-style: normal; font-weight: 400; }}
{CARDS} em::before {{ content: " · "; }}

/* The tray: what is wanted, and what is not. */
{TRAY} {{ gap: 0.3rem; padding-left: 0.6rem; border-left: 3px solid {ACCENT}; }}
[class*=st-key-{Key.TRAY}-unlike-] {{ border-left-color: #b3423a; }}
[class*=st-key-{Key.TRAY}-unlike-] img {{ filter: grayscale(0.7); }}
{PART} div:has(> img) {{ position: relative; width: fit-content; touch-action: none; cursor: crosshair; }}
{PART} img {{ display: block; max-width: 100%; min-width: 12rem; user-select: none; border-radius: 8px; }}
{PART} span {{ position: absolute; border: 2px solid #fff; outline: 2px solid {ACCENT}; pointer-events: none; }}

/* A group: its most typical image, and beside it those of its parts. */
{GROUPS} {{
  display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 1rem; margin: 0; padding: 0;
}}
{GROUPS} li {{ list-style: none; margin: 0; min-width: 0; }}
{GROUPS} button {{
  display: grid; grid-template: repeat(3, 1fr) auto / 3fr 1fr; gap: 4px; width: 100%; padding: 0; border: none;
  border-radius: 8px; overflow: hidden; background: color-mix(in srgb, currentColor 6%, transparent); color: inherit;
  cursor: pointer; font-size: 0.85rem;
}}
{GROUPS} img {{ width: 100%; height: 100%; aspect-ratio: 1; object-fit: cover; display: block; }}
{GROUPS} img:first-child {{ grid-row: 1 / 4; }}
{GROUPS} img:only-of-type {{ grid-column: 1 / 3; }}
{GROUPS} span {{ grid-column: 1 / 3; padding: 0.25rem 0.6rem 0.4rem; text-align: left; font-weight: 600; }}
{GROUPS} button:is(:hover, :focus-visible) {{ outline: 2px solid {ACCENT}; outline-offset: -2px; }}

/* The map: two canvases, pictures and a tip over each other, buttons at its edge. */
{MAP} {{
  position: relative; height: min(72vh, 60rem); overflow: hidden; border-radius: 8px;
  background: color-mix(in srgb, currentColor 4%, transparent);
}}
{MAP} canvas {{ position: absolute; inset: 0; width: 100%; height: 100%; touch-action: none; cursor: grab; }}
{MAP} canvas:nth-of-type(2), {MAP} figure, {MAP} aside {{ pointer-events: none; }}
{MAP}[data-mode=lasso] canvas {{ cursor: crosshair; }}
{MAP} figure {{ position: absolute; inset: 0; margin: 0; }}
{MAP} figure img {{ position: absolute; width: 70px; height: 70px; object-fit: cover; border-radius: 6px; }}
{MAP} aside {{ position: absolute; }}
{MAP} aside img {{ width: 140px; height: 140px; object-fit: contain; border-radius: 8px; background: #000a; }}
{MAP} nav {{ position: absolute; left: 0.6rem; bottom: 0.6rem; display: flex; flex-wrap: wrap; gap: 0.3rem; }}
{MAP} nav button {{
  min-width: 2rem; height: 2rem; padding: 0 0.5rem; border: none; border-radius: 8px; background: rgb(0 0 0 / 65%);
  color: #fff; cursor: pointer;
}}
{MAP} nav button:is(:hover, :focus-visible, [aria-pressed=true]) {{ background: {ACCENT}; outline: 2px solid #fff; }}
{MAP} > p {{ position: absolute; inset: 0 1rem auto; margin: 1rem 0 0; text-align: center; }}

/* Near-duplicates side by side. */
{COPIES} ul {{
  display: grid; grid-template-columns: repeat(auto-fill, minmax(155px, 190px)); gap: 1rem; margin: 0;
  padding: 1rem 0; border-top: 1px solid #8883;
}}
{COPIES} li {{ list-style: none; margin: 0; min-width: 0; font-size: 0.85rem; }}
{COPIES} button {{ border: none; background: transparent; color: inherit; padding: 0; cursor: pointer; }}
{COPIES} button[name={Action.OPEN}] {{ display: block; width: 100%; }}
{COPIES} img {{
  display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 8px;
  background: color-mix(in srgb, currentColor 6%, transparent);
}}
{COPIES} mark {{ margin-left: 0.5rem; padding: 0 0.5rem; border-radius: 1rem; background: {ACCENT}; color: #fff; }}
{COPIES} p {{
  margin: 0; font-size: inherit; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  color: color-mix(in srgb, currentColor 72%, transparent);
}}
{COPIES} button[name={Action.APART}] {{
  margin-top: 0.3rem; padding: 0.2rem 0.7rem; border: 1px solid color-mix(in srgb, currentColor 25%, transparent);
  border-radius: 8px;
}}
{COPIES} button:is(:hover, :focus-visible) {{ outline: 2px solid {ACCENT}; outline-offset: 1px; border-radius: 8px; }}

/* Files with the same bytes: wider cards, that their paths can be read. */
{COPIES} ul.files {{ grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }}
{COPIES} ul.files img {{ max-height: 12rem; }}
{COPIES} li > div {{ max-height: 12rem; overflow-y: auto; }}
{COPIES} li > div p {{ margin-top: 0.3rem; white-space: normal; overflow-wrap: anywhere; }}
{COPIES} li > div mark {{ margin: 0 0.4rem 0 0; }}

/* Pairs that were told apart, each in a line. */
{PAIRS} {{ margin: 0; padding: 0; }}
{PAIRS} li {{
  display: grid; grid-template-columns: 1fr 1fr auto; gap: 0.7rem; align-items: center; margin: 0; padding: 0.4rem 0;
  list-style: none; font-size: 0.85rem;
}}
{PAIRS} figure {{ display: flex; flex-wrap: wrap; align-items: center; gap: 0.2rem 0.5rem; min-width: 0; margin: 0; }}
{PAIRS} img {{ flex: none; width: 3rem; height: 3rem; object-fit: cover; border-radius: 6px; }}
{PAIRS} figcaption {{ flex: 1 1 7rem; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
{PAIRS} button {{
  padding: 0.2rem 0.7rem; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: 8px;
  background: transparent; color: inherit; cursor: pointer;
}}
{PAIRS} button:is(:hover, :focus-visible) {{ outline: 2px solid {ACCENT}; outline-offset: 1px; }}

/* Under it how similar, and which file; at the right the way to the original. */
{CARDS} :is(div, p) {{ margin: 0; }}
{CARDS} :is(span, p) {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
{CARDS} div {{ display: flex; align-items: center; gap: 0.5rem; min-height: 1.9rem; }}
{CARDS} span {{ flex: 1; font-variant-numeric: tabular-nums; }}
{CARDS} li:has(> p) span {{ font-weight: 600; }}
{CARDS} p {{ margin-top: -0.3rem; font-size: inherit; color: color-mix(in srgb, currentColor 72%, transparent); }}
{OPEN} {{ flex: none; width: 1.9rem; height: 1.9rem; display: grid; place-items: center; border-radius: 8px; }}
{OPEN}::before {{
  content: ""; width: 0.8rem; height: 0.8rem; background: currentColor; opacity: 0.6; mask: {OPEN_MASK};
}}
{OPEN}:is({POINTED}, :focus-visible) {{ outline: 2px solid {ACCENT}; outline-offset: -2px; }}
{OPEN}:is({POINTED}, :focus-visible)::before {{ opacity: 1; }}

/* What is searched from stays in sight beside a long answer. */
@media (min-width: 900px) {{
  .stColumn:has({RAIL}) {{ position: sticky; top: 4.5rem; align-self: flex-start; }}
}}
{QUERY} {{ gap: 0.4rem; }}
{QUERY} img {{ max-height: 22rem; object-fit: contain; }}
/* Several pictures: a line of text before them. */
{QUERY}:has(> :nth-child(3)) img {{ max-height: 8rem; }}
{QUERY} .stText {{ font-size: 0.85rem; color: color-mix(in srgb, currentColor 72%, transparent); }}
{QUERY} .stElementContainer:nth-child(2) .stText {{ font-weight: 600; color: inherit; }}
{LARGE} :is(.stElementContainer, [data-testid="stFullScreenFrame"], {FRAME}, .stImage) {{ width: 100%; }}
{LARGE} .stImage {{ justify-content: center; }}
{LARGE} img {{ max-height: 62vh; width: auto !important; object-fit: contain; }}
.st-key-{Key.COUNT} button {{ min-height: 2.5rem; }}
{RAIL} [data-testid="stFileUploaderDropzoneInstructions"] span {{ font-size: 0; }}
{RAIL} [data-testid="stFileUploaderDropzoneInstructions"] span::after {{
  content: "{UPLOAD_MB} MB at most; it goes nowhere but to this page"; font-size: 0.8rem; white-space: normal;
}}
{FOOTER} .stText {{ font-size: 0.8rem; color: color-mix(in srgb, currentColor 65%, transparent); }}

/* White on the accent stands out in light and in dark; on the dark theme's own green it would not. */
button[kind="primary"][data-testid] {{ background: {ACCENT}; border-color: {ACCENT}; color: #fff; }}
button[kind="primary"][data-testid]:hover {{ filter: brightness(0.92); }}
[data-testid="stCaptionContainer"] {{ opacity: 1; color: color-mix(in srgb, currentColor 72%, transparent); }}
[aria-label="Pagination"] span {{ color: inherit; }}

/* A table of sentences: rows as high as their text. */
{TABLE} table {{ width: 100%; table-layout: fixed; border-collapse: collapse; font-size: 0.9rem; }}
{TABLE} :is(th, td) {{
  padding: 0.6rem 1rem 0.6rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere;
  border: solid color-mix(in srgb, currentColor 15%, transparent); border-width: 0 0 1px;
}}
{TABLE} th {{ font-weight: 600; }}
{TABLE} th:nth-child(2) {{ width: 36%; }}
{TABLE} th:last-child {{ width: 9.5rem; }}

@media (max-width: 640px) {{
  /* On a phone a row's cells stand below one another, each with its column's name. */
  {TABLE} thead {{ display: none; }}
  {TABLE} :is(tr, td) {{ display: block; }}
  {TABLE} tr {{ padding: 0.75rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); }}
  {TABLE} td {{ padding: 0.1rem 0; border: none; }}
  {TABLE} td:first-child {{ font-weight: 600; }}
  {TABLE} td:nth-child(n + 3)::before {{
    content: attr(data-name) ": "; color: color-mix(in srgb, currentColor 72%, transparent);
  }}
  {MENU} {{ left: auto; right: 0.5rem; }}
  /* Six names have no place there: their signs, and the names for who has the page read out. */
  {MENU} a > span:last-child {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }}
  {MENU} a {{ padding: 0.5rem; }}
  .stMainBlockContainer {{ padding-left: 1rem; padding-right: 1rem; }}
  {QUERY} img {{ max-height: 14rem; }}
}}
</style>"""

"""The script that Streamlit runs on every visit and every click: the pages' list, and the one in view.

While it runs, Streamlit lets it stand as the process's main module, which a process that is started then
(`indexer.workers`) imports under another name: there it must do nothing, and load nothing.

Rule: this file only leads to a page; a page reads from top to bottom.
"""

if __name__ == "__main__":
    import streamlit as st

    from seer_model.errors import UserError
    from ui.address import take_way_to_search
    from ui.components import show_error
    from ui.keys import Key
    from ui.menu import show_menu
    from ui.shortcuts import listen
    from ui.theme import ICON, LOGO, STYLE

    st.set_page_config(page_title="seer", page_icon=ICON, layout="wide")
    st.logo(LOGO)
    st.html(STYLE)
    pages = [
        st.Page("views/find.py", title="Find similar", icon=":material/image_search:", default=True),
        st.Page("views/map.py", title="Map", icon=":material/scatter_plot:", url_path="map"),
        st.Page("views/duplicates.py", title="Duplicates", icon=":material/content_copy:", url_path="duplicates"),
        st.Page("views/favourites.py", title="Favourites", icon=":material/favorite:", url_path="favourites"),
        st.Page(
            "views/not_searchable.py", title="Not searchable", icon=":material/hide_image:", url_path="not-searchable"
        ),
        st.Page("views/status.py", title="Status", icon=":material/database:", url_path="status"),
    ]
    page = st.navigation(pages, position="hidden")
    if (way := take_way_to_search()) is not None:
        st.switch_page(pages[0], query_params=way)
    st.session_state[Key.HERE] = page.url_path
    show_menu(pages)
    listen()
    try:
        page.run()
    except UserError as error:
        show_error(error)

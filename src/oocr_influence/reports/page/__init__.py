"""What a sweep left behind, as one page that opens in any browser without a network.

    data = page_data(collected)
    Path("report.html").write_text(render_page(data))

Records are read, and nothing else: no model, no torch. What no record says is null here and
"unknown" or "not recorded" on the page.
"""

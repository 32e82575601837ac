"""How the page looks: colours, sizes and style sheets."""

from pathlib import Path

import gradio as gr

_HERE = Path(__file__).parent
CSS = [_HERE / "page.css", _HERE / "explorer" / "explorer.css"]


def _in_both(light: str, dark: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, light) | {f"{name}_dark": dark for name in names}


# Fonts of the visitor's own system: nothing is fetched for them. Lines in place of shadows, labels in plain ink.
THEME = gr.themes.Soft(
    primary_hue="blue", neutral_hue="slate", spacing_size="sm", radius_size="md",
    font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "Consolas", "monospace"],
).set(
    **_in_both("none", "none", "block_title_background_fill", "block_label_background_fill", "block_shadow",
               "button_primary_shadow", "button_primary_shadow_hover", "button_secondary_shadow",
               "button_secondary_shadow_hover", "checkbox_label_shadow", "input_shadow"),
    **_in_both("*body_text_color", "*body_text_color", "block_title_text_color", "block_label_text_color"),
    **_in_both("1px", "1px", "block_border_width", "input_border_width", "button_border_width",
               "checkbox_label_border_width"),
    **_in_both("*neutral_200", "*neutral_700", "block_border_color", "input_border_color", "border_color_primary",
               "button_secondary_border_color", "checkbox_label_border_color"),
    **_in_both("*neutral_300", "*neutral_600", "button_secondary_border_color_hover", "checkbox_border_color"),
    **_in_both("*primary_600", "*primary_600", "button_primary_background_fill", "button_primary_border_color",
               "checkbox_label_background_fill_selected", "checkbox_label_border_color_selected"),
    **_in_both("*primary_700", "*primary_500", "button_primary_background_fill_hover"),
    **_in_both("white", "*neutral_800", "button_secondary_background_fill", "checkbox_label_background_fill"),
    **_in_both("*neutral_100", "*neutral_700", "button_secondary_background_fill_hover"),
    **_in_both("*neutral_500", "*neutral_400", "block_info_text_color", "body_text_color_subdued"),
    block_title_padding="0", block_title_text_size="*text_sm",
    block_label_padding="0", block_label_text_size="*text_sm",
    block_padding="*spacing_lg *spacing_xl", button_large_padding="*spacing_md *spacing_xl",
    button_large_text_size="*text_md", button_large_text_weight="600", checkbox_label_padding="*spacing_sm *spacing_lg",
)

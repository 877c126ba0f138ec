//! Renders text as escaped HTML, with the Markdown that descriptions use: code, lists, paragraphs.

/// HTML under construction.
#[derive(Default)]
pub struct Html(String);

impl Html {
    /// Appends HTML without escaping.
    pub fn push(&mut self, html: &str) {
        self.0.push_str(html);
    }

    /// The complete HTML.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Escapes text for use between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Text in a `code` element.
pub fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// Renders a description: paragraphs, list items that begin with `- `, and code in backticks.
pub fn prose(markdown: &str) -> String {
    let mut html = String::new();
    for part in markdown.split("\n\n").filter(|part| !part.trim().is_empty()) {
        match part.strip_prefix("- ") {
            Some(item) => html.push_str(&format!("<li>{}</li>\n", inline(item))),
            None => html.push_str(&format!("<p>{}</p>\n", inline(part))),
        }
    }
    html
}

fn inline(text: &str) -> String {
    let mut html = String::new();
    for (number, part) in text.split('`').enumerate() {
        match number % 2 {
            0 => html.push_str(&escape(part)),
            _ => html.push_str(&code(part)),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_text_is_escaped() {
        let hostile = "<script>\"'&`</code><b>`";
        for html in [escape(hostile), prose(hostile), code(hostile)] {
            assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        }
        assert_eq!(prose("a `b<` c"), "<p>a <code>b&lt;</code> c</p>\n");
        assert_eq!(prose("a\n\n- b\n\n- c"), "<p>a</p>\n<li>b</li>\n<li>c</li>\n");
    }
}

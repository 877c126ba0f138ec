//! Text of unknown origin, made safe for people and terminals.

/// Whether a terminal interprets the character instead of displaying it, or displays the following text in another
/// order: control characters (C0, DEL, C1), separators of lines and paragraphs, and marks that change the direction of
/// text.
pub fn is_hazardous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Makes untrusted text safe for a log, a table and a terminal: hazardous characters become U+FFFD (newline and tab
/// become a space), and text beyond `bytes_max` is cut at a character boundary and marked with an ellipsis.
pub fn clean_text(text: &str, bytes_max: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let character = match character {
            '\n' | '\t' => ' ',
            other if is_hazardous(other) => char::REPLACEMENT_CHARACTER,
            other => other,
        };
        if clean.len() + character.len_utf8() > bytes_max.saturating_sub('…'.len_utf8()) {
            clean.push('…');
            break;
        }
        clean.push(character);
    }
    clean
}

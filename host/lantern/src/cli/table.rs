//! Text tables with aligned columns, and formats for their cells.

use super::output;

/// Aligns the columns of rows, two spaces apart. Columns marked `true` in `right` are aligned to the right; the last column
/// is not padded. Line ends in cells are escaped.
pub fn align(rows: &[Vec<String>], right: &[bool], indent: &str) -> String {
    let rows: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| output::line(cell)).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::from(indent);
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let to_the_right = right.get(column).copied().unwrap_or_default();
            let gap = if column == 0 { "" } else { "  " };
            match to_the_right {
                true => line.extend([gap, &padding, cell]),
                false => line.extend([gap, cell, &padding]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Formats a number of bytes with a unit and at most three digits.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 10.0 => format!("{value:.1} {}", units[unit]),
        _ => format!("{value:.0} {}", units[unit]),
    }
}

/// Removes the fraction of a second from a time of the API.
pub fn to_the_second(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, fraction)) if fraction.ends_with('Z') => format!("{whole}Z"),
        _ => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            vec!["ä".into(), "1".into(), "x".into()],
            vec!["bcd".into(), "100".into(), "yy".into()],
        ];
        assert_eq!(
            align(&rows, &[false, true], "  "),
            "  ä      1  x\n  bcd  100  yy\n"
        );
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(122 * 1024), "122 KiB");
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}

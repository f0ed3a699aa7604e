//! Tables for people: columns as wide as their widest cell, two spaces between, no lines.
//!
//! Cells come from hosts, so every cell is escaped here and nowhere can one be forgotten. Widths count characters,
//! with two columns for the wide scripts and none for combining marks.

use common::escape;

/// Which side of its column a cell leans on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A head and rows of the same number of cells.
#[derive(Debug)]
pub struct Table<const N: usize> {
    head: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// Starts with a head and no row.
    #[must_use]
    pub fn new(head: [(&'static str, Align); N]) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Adds a row. Whatever the cells hold, they stay on one line and move no cursor.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(escape::text));
    }

    /// Lays it out for a screen of `columns`, or as wide as it is. Where it is too wide, the last column is cut.
    #[must_use]
    pub fn lay_out(&self, columns: Option<usize>) -> String {
        let head = self.head.map(|(title, _)| title.to_owned());
        let lines = || std::iter::once(&head).chain(&self.rows);
        let mut widths = [0; N];
        for line in lines() {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(display_width(cell));
            }
        }
        let mut text = String::new();
        for line in lines() {
            let mut used = 0;
            let start = text.len();
            for (index, ((cell, width), (_, align))) in line.iter().zip(widths).zip(self.head).enumerate() {
                let is_last = index + 1 == N;
                let shown = match columns {
                    Some(columns) if is_last => cut(cell, columns.saturating_sub(used).max(8)),
                    _ => cell.clone(),
                };
                let padding = " ".repeat(width.saturating_sub(display_width(&shown)));
                match align {
                    Align::Left => {
                        text.push_str(&shown);
                        text.push_str(&padding);
                    }
                    Align::Right => {
                        text.push_str(&padding);
                        text.push_str(&shown);
                    }
                }
                if !is_last {
                    text.push_str("  ");
                }
                used += width + 2;
            }
            text.truncate(start + text.get(start..).map_or(0, |line| line.trim_end().len()));
            text.push('\n');
        }
        text
    }
}

/// Lays out names and values below each other, the names in one column.
#[must_use]
pub fn card(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| display_width(name)).max().unwrap_or(0);
    lines.iter().map(|(name, value)| format!("{name:<width$}  {}\n", escape::text(value))).collect()
}

/// Shortens a text to `width` columns, the last of them an ellipsis.
fn cut(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 0;
    for character in text.chars() {
        used += character_width(character);
        if used >= width {
            break;
        }
        shown.push(character);
    }
    shown.push('…');
    shown
}

fn display_width(text: &str) -> usize {
    text.chars().map(character_width).sum()
}

/// The columns a terminal gives a character. The ranges are the blocks of Unicode's East Asian Width that are wide in
/// every terminal; a wrong guess for a rare character costs a crooked column and nothing else.
fn character_width(character: char) -> usize {
    match character {
        '\u{300}'..='\u{36f}'
        | '\u{483}'..='\u{489}'
        | '\u{591}'..='\u{5bd}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{fe20}'..='\u{fe2f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table<3> {
        let mut table = Table::new([("ID", Align::Right), ("AGENT", Align::Left), ("COMMAND", Align::Left)]);
        table.row(["7".into(), "web1".into(), "uname -a".into()]);
        table.row(["1042".into(), "database-2".into(), "echo \x1b[31mred\u{202e}\nnext".into()]);
        table.row(["8".into(), "東京".into(), "sleep 100".into()]);
        table
    }

    #[test]
    fn columns_line_up_and_cells_stay_on_their_line() {
        insta::assert_snapshot!(sample().lay_out(None), @r"
          ID  AGENT       COMMAND
           7  web1        uname -a
        1042  database-2  echo \u{1b}[31mred\u{202e}\nnext
           8  東京        sleep 100
        ");
    }

    #[test]
    fn a_narrow_screen_cuts_the_last_column_only() {
        let text = sample().lay_out(Some(28));
        assert!(text.lines().all(|line| display_width(line) <= 28), "{text}");
        assert!(text.contains("database-2  echo \\u{1…"), "{text}");
    }

    #[test]
    fn cards_align_their_names() {
        let text = card(&[("id", "7".into()), ("agent", "a\tb".into())]);
        assert_eq!(text, "id     7\nagent  a\\tb\n");
    }
}

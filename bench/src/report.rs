//! The table of figures: what was measured, the goal, and what it stands beside in the same run.

use std::fmt::Write;

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The measured value with its unit.
    pub value: String,
    /// What it should be; empty when it only informs.
    pub goal: &'static str,
    /// Whether the goal is met; `None` without a goal.
    pub met: Option<bool>,
    /// What the same run measured beside it.
    pub beside: String,
}

impl Figure {
    /// A figure with a goal.
    pub fn new(what: impl Into<String>, value: impl Into<String>, goal: &'static str, met: bool) -> Self {
        Self { what: what.into(), value: value.into(), goal, met: Some(met), beside: String::new() }
    }

    /// A figure that only informs.
    pub fn plain(what: impl Into<String>, value: impl Into<String>) -> Self {
        Self { what: what.into(), value: value.into(), goal: "", met: None, beside: String::new() }
    }

    /// Adds what it stands beside.
    pub fn beside(mut self, beside: impl Into<String>) -> Self {
        self.beside = beside.into();
        self
    }
}

/// Lays the figures out as a Markdown table, which is also readable as it is.
pub fn table(figures: &[Figure]) -> String {
    let heads = ["figure", "measured", "goal", "met", "beside, in the same run"];
    let rows: Vec<[String; 5]> = figures
        .iter()
        .map(|figure| {
            let met = match figure.met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            [figure.what.clone(), figure.value.clone(), figure.goal.to_owned(), met.to_owned(), figure.beside.clone()]
        })
        .collect();
    let mut widths = heads.map(|head| head.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; 5]| {
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
    };
    line(heads);
    let dashes = widths.map(|width| "-".repeat(width));
    line([&dashes[0], &dashes[1], &dashes[2], &dashes[3], &dashes[4]]);
    for row in &rows {
        line([&row[0], &row[1], &row[2], &row[3], &row[4]]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_shown_as_missed() {
        let shown = table(&[Figure::new("a", "9 ms", "≤ 5 ms", false), Figure::plain("b", "1").beside("c")]);
        assert!(shown.lines().nth(2).is_some_and(|line| line.contains("NO")));
        assert_eq!(shown.lines().count(), 4);
    }
}

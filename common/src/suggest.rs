//! The known name that is nearest to a mistyped one.

/// Finds the candidate that `word` was probably meant to be; `None` when nothing is near.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let reach = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Counts insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().take(64).collect();
    let right: Vec<char> = right.to_lowercase().chars().take(64).collect();
    let width = right.len() + 1;
    let mut table = vec![0; (left.len() + 1) * width];
    let at = |row: usize, column: usize| row * width + column;
    for row in 0..=left.len() {
        for column in 0..width {
            table[at(row, column)] = if row == 0 || column == 0 {
                row.max(column)
            } else {
                let same = left[row - 1] == right[column - 1];
                let replaced = table[at(row - 1, column - 1)] + usize::from(!same);
                let best = replaced.min(table[at(row - 1, column)] + 1).min(table[at(row, column - 1)] + 1);
                let swapped =
                    row > 1 && column > 1 && left[row - 1] == right[column - 2] && left[row - 2] == right[column - 1];
                if swapped { best.min(table[at(row - 2, column - 2)] + 1) } else { best }
            };
        }
    }
    table[at(left.len(), right.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_their_word_and_strangers_find_none() {
        let known = ["timeout", "expires_in", "operation", "cwd"];
        assert_eq!(nearest("timout", known), Some("timeout"));
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("Operation", known), Some("operation"));
        assert_eq!(nearest("cdw", known), Some("cwd"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("", known), None);
    }
}

//! Mistakes in the command line itself, told in the form in which results were asked for.
//!
//! Text is the parser's own. For programs its message becomes a problem of the usual shape: whoever reads documents
//! from stderr has to read one here too, though nothing was parsed that says so.

use std::ffi::OsString;

use clap::ValueEnum as _;
use clap::error::ErrorKind;

use crate::args::Format;
use crate::error::{Failure, Kind};

/// Prints what the parser says: help on stdout, mistakes on stderr.
pub fn tell(error: &clap::Error, args: &[OsString]) {
    match asked_for(args) {
        format @ (Format::Json | Format::Yaml) if error.use_stderr() => problem(error).tell(format),
        // Without a reader there is no one to tell.
        _ => drop(error.print()),
    }
}

/// The last format that the words name, as far as they can be understood.
fn asked_for(args: &[OsString]) -> Format {
    let mut format = Format::default();
    let mut words = args.iter().map_while(|word| word.to_str()).take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        let value = match word {
            "-o" | "--output" => words.next(),
            word => word.strip_prefix("--output=").or_else(|| short(word)),
        };
        format = value.and_then(|value| Format::from_str(value, false).ok()).unwrap_or(format);
    }
    format
}

/// `-ojson` and `-o=json`.
fn short(word: &str) -> Option<&str> {
    let value = word.strip_prefix("-o")?;
    Some(value.strip_prefix('=').unwrap_or(value))
}

fn problem(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::new(Kind::Usage, "a verb is missing").hint("--help lists them");
    }
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(str::trim);
    let what = parts.next().unwrap_or_default();
    let failure = Failure::new(Kind::Usage, one_line(what.strip_prefix("error: ").unwrap_or(what)));
    match parts.find_map(|part| part.strip_prefix("tip: ")) {
        Some(tip) => failure.hint(one_line(tip)),
        None => failure,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use clap::Parser;

    use super::*;
    use crate::args::{Client, Globals};

    #[derive(Debug, Parser)]
    struct Tree {
        #[command(flatten)]
        _globals: Globals,
        #[command(subcommand)]
        _verb: Client,
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_format_is_found_in_a_line_that_cannot_be_parsed() {
        for (line, format) in [
            ("show x", Format::Table),
            ("show x -o json", Format::Json),
            ("-o yaml show x", Format::Yaml),
            ("show -ojson x", Format::Json),
            ("show -o=json x", Format::Json),
            ("show --output=json x", Format::Json),
            ("--output yaml show", Format::Yaml),
            ("show -o xml", Format::Table),
            ("show -o", Format::Table),
            ("run web1 -- cat -o json", Format::Table),
        ] {
            assert_eq!(asked_for(&words(line)), format, "{line}");
        }
    }

    #[test]
    fn a_mistake_is_one_sentence_and_its_tip_a_hint() {
        let said = |line: &str| {
            let error = Tree::try_parse_from(words(&format!("paprika {line}"))).unwrap_err();
            let document = problem(&error).document();
            assert_eq!(document["code"], "usage");
            (document["detail"].as_str().unwrap().to_owned(), document["hint"].as_str().map(str::to_owned))
        };
        let (detail, _) = said("show x");
        assert!(detail.starts_with("invalid value 'x' for '<ID>': an id is a number"), "{detail}");
        let (detail, hint) = said("agnets");
        assert_eq!(detail, "unrecognized subcommand 'agnets'");
        assert!(hint.unwrap().contains("'agents'"));
        let (detail, _) = said("cancel");
        assert!(detail.contains("required") && detail.contains("<ID>") && !detail.contains('\n'), "{detail}");
        assert_eq!(said("").0, "a verb is missing");
    }
}

//! The query of a URL: known words only, each once unless it may be a list.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use api::page::{DEFAULT_LIMIT, MAX_LIMIT};
use axum::extract::{FromRequestParts, Query};
use common::config::parse_duration;
use common::escape;
use common::suggest;
use http::request::Parts;

use super::problem::Refusal;

/// The words of a query that were not taken yet.
#[derive(Debug, Default)]
pub(super) struct Words {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl<S: Sync> FromRequestParts<S> for Words {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Query(left) = Query::try_from_uri(&parts.uri)
            .map_err(|_| Refusal::invalid("query", "the query of the URL cannot be read"))?;
        Ok(Self { left, known: Vec::new() })
    }
}

impl Words {
    /// Takes a word that may stand there once.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Refusal> {
        let mut values = self.list(name);
        if values.len() > 1 {
            return Err(Refusal::invalid(name, format!("`{name}` may stand in the query once")));
        }
        Ok(values.pop())
    }

    /// Takes a word that may stand there several times.
    pub(super) fn list(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let (values, left) = std::mem::take(&mut self.left).into_iter().partition(|(word, _)| word == name);
        self.left = left;
        let values: Vec<(String, String)> = values;
        values.into_iter().map(|(_, value)| value).collect()
    }

    /// Takes a word and reads it.
    pub(super) fn value<T>(&mut self, name: &'static str) -> Result<Option<T>, Refusal>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(name)?;
        text.map(|text| read(name, &text)).transpose()
    }

    /// Takes a word that is `true` or `false`; standing alone it is `true`.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, Refusal> {
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("" | "true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(Refusal::invalid(name, format!("`{name}` is `true` or `false`"))),
        }
    }

    /// Takes a word that is a duration.
    pub(super) fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, Refusal> {
        let text = self.text(name)?;
        text.map(|text| parse_duration(&text).map_err(|error| Refusal::invalid(name, error.to_string()))).transpose()
    }

    /// Takes `limit`.
    pub(super) fn limit(&mut self) -> Result<usize, Refusal> {
        let limit = self.value::<u32>("limit")?.unwrap_or(DEFAULT_LIMIT);
        if (1..=MAX_LIMIT).contains(&limit) {
            Ok(limit as usize)
        } else {
            Err(Refusal::invalid("limit", format!("`limit` is between 1 and {MAX_LIMIT}")))
        }
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        let Some((word, _)) = self.left.first() else {
            return Ok(());
        };
        let refusal = Refusal::new(http::StatusCode::BAD_REQUEST, "unknown_field", "The request is not valid")
            .field(escape::text(word.as_str()))
            .detail(format!("the query has no word `{}` here", escape::text(word.as_str())));
        Err(match suggest::nearest(word, self.known.iter().copied()) {
            Some(near) => refusal.hint(format!("did you mean `{near}`?")),
            None if self.known.is_empty() => refusal.hint("this call takes no query"),
            None => refusal.hint(format!("known are: {}", self.known.join(", "))),
        })
    }
}

/// Reads a value that a person wrote.
pub(super) fn read<T>(field: &str, text: &str) -> Result<T, Refusal>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| Refusal::invalid(field, format!("`{}`: {error}", escape::text(text))))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::Request;

    use super::*;

    async fn words(query: &str) -> Words {
        let (mut parts, ()) = Request::get(format!("/x{query}")).body(()).unwrap().into_parts();
        Words::from_request_parts(&mut parts, &()).await.unwrap()
    }

    #[tokio::test]
    async fn words_are_taken_once_and_lists_as_often_as_they_stand_there() {
        let mut words = words("?phase=queued&phase=running&agent=web%31&follow").await;
        assert_eq!(words.list("phase"), ["queued", "running"]);
        assert_eq!(words.text("agent").unwrap().as_deref(), Some("web1"));
        assert_eq!(words.flag("follow").unwrap(), Some(true));
        assert_eq!(words.limit().unwrap(), 100);
        words.finish().unwrap();
    }

    #[tokio::test]
    async fn what_is_unknown_double_or_unreadable_is_refused() {
        assert!(words("?from=1&from=2").await.value::<u64>("from").is_err());
        assert!(words("?from=x").await.value::<u64>("from").is_err());
        assert!(words("?follow=maybe").await.flag("follow").is_err());
        assert!(words("?wait=1M").await.duration("wait").is_err());
        for limit in ["0", "1001", "-1"] {
            assert!(words(&format!("?limit={limit}")).await.limit().is_err());
        }
        let mut left = words("?form=1").await;
        left.value::<u64>("from").unwrap();
        let shown = format!("{:?}", left.finish().unwrap_err());
        assert!(shown.contains("did you mean `from`?"), "{shown}");
    }
}

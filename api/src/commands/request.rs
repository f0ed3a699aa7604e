//! What is asked for: one request for one agent, and the same for several.

use std::collections::BTreeMap;

use common::config::HumanDuration;
use common::id::Name;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::limits::LimitsRequest;
use super::value::TextOrSecret;

/// Writes both requests from one list of fields. A struct inside the other, flattened, could not refuse unknown fields;
/// one struct for both could not refuse `agents` where the path names the agent.
macro_rules! requests {
    ($($(#[$about:meta])* pub $field:ident: $kind:ty,)*) => {
        /// What to run, as `POST /agents/{name}/commands` takes it.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(deny_unknown_fields)]
        pub struct CommandRequest {
            $($(#[$about])* pub $field: $kind,)*
        }

        /// The same request for several agents, as `POST /commands` takes it: one job, one command for each agent.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(deny_unknown_fields)]
        pub struct JobRequest {
            /// The agents, each once.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>, example = json!(["web1", "web2"])))]
            pub agents: Vec<Name>,
            /// Instead of `agents`: an expression over names and groups, for example `@web and not web3`. It is resolved once,
            /// when the job is made.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub target: Option<String>,
            $($(#[$about])* pub $field: $kind,)*
        }

        impl JobRequest {
            /// Sends `request` to several agents.
            #[must_use]
            pub fn new(agents: Vec<Name>, request: CommandRequest) -> Self {
                Self { agents, target: None, $($field: request.$field,)* }
            }

            /// Takes the agents and what each of them is to run apart; `target` is for the caller to look at first.
            #[must_use]
            pub fn split(self) -> (Vec<Name>, CommandRequest) {
                (self.agents, CommandRequest { $($field: self.$field,)* })
            }
        }
    };
}

requests! {
    /// The operation, for example `command.run`, `script.run` or `agent.ping`.
    #[cfg_attr(feature = "openapi", schema(example = "command.run"))]
    pub operation: String,
    /// Arguments of the operation. `command.run` takes `run` (a list of words) or `shell` (one line). `script.run` takes
    /// `content`, and may take `interpreter` (a word or a list) and `args` (a list). Both take guards: `creates` and
    /// `removes` (absolute paths), `unless` and `only_if` (a line or a list).
    #[serde(default = "no_args")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object, example = json!({"run": ["uname", "-a"]})))]
    pub args: Value,
    /// How long it may run; no timeout when absent. It does not pass while the command is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30s"))]
    pub timeout: Option<HumanDuration>,
    /// How long it may wait for its start; 24 hours when absent, at most 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "1h"))]
    pub expires_in: Option<HumanDuration>,
    /// The user it runs as, by name or number; the agent's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Variables added to its environment. One whose value is `{"secret": "text"}` is kept sealed and shown to nobody.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::texts_or_secrets))]
    pub env: BTreeMap<String, TextOrSecret>,
    /// Its working directory; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Its standard input as text; empty when absent. As `{"secret": "text"}` it is kept sealed and shown to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::text_or_secret))]
    pub stdin: Option<TextOrSecret>,
    /// Its standard input as base64, for bytes that are not text, or `{"secret": "base64"}`. Only one of `stdin` and
    /// `stdin_b64` may be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::text_or_secret))]
    pub stdin_b64: Option<TextOrSecret>,
    /// What it may use. An agent that cannot enforce a limit refuses the command, unless `best_effort` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsRequest>,
    /// Its file mode mask, octal; `022` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "0027"))]
    pub umask: Option<String>,
    /// What is added to the niceness of the agent, -20 to 19.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = 5))]
    pub nice: Option<i32>,
    /// How gladly the kernel kills it for want of memory, -1000 to 1000; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = 500))]
    pub oom_score: Option<i32>,
    /// Processes that live on when the main one has ended are left alone; else they are killed then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_strays: bool,
    /// The first signal when it is stopped, a name or a number; `TERM` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_or_number")]
    #[cfg_attr(feature = "openapi", schema(example = "INT"))]
    pub stop_signal: Option<String>,
    /// That signal reaches the main process only; else every process of the command.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop_only_main: bool,
    /// From that signal to the kill, at a timeout and at a cancel that names none; 10 seconds when absent, at most an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10s"))]
    pub grace: Option<HumanDuration>,
    /// Running it twice does no harm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
}

impl CommandRequest {
    /// Tells whether something of it is secret.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        self.env.values().chain(&self.stdin).chain(&self.stdin_b64).any(TextOrSecret::is_secret)
    }
}

fn no_args() -> Value {
    Value::Object(serde_json::Map::new())
}

/// Reads a value that people write with and without quotes.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Option<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a name or a number")
        }
        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string()))
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned()))
        }
        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_none<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
            inner.deserialize_any(self)
        }
    }
    deserializer.deserialize_any(Visitor)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_request_refuses_unknown_fields_and_fills_defaults() {
        let request: CommandRequest = serde_json::from_str(r#"{"operation":"agent.ping"}"#).unwrap();
        assert_eq!(request.args, serde_json::json!({}));
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"operation":"agent.ping","args":{}}"#);
        for unknown in ["timout", "agents"] {
            let text = format!(r#"{{"operation":"agent.ping","{unknown}":"1s"}}"#);
            let error = serde_json::from_str::<CommandRequest>(&text).unwrap_err();
            assert!(error.to_string().starts_with(&format!("unknown field `{unknown}`")), "{error}");
        }
        let error = serde_json::from_str::<JobRequest>(r#"{"agents":[],"operation":"x","nise":1}"#).unwrap_err();
        assert!(error.to_string().starts_with("unknown field `nise`"), "{error}");
    }

    #[test]
    fn a_job_is_the_same_request_for_several_agents() {
        let text = r#"{"operation":"command.run","args":{"run":["true"]},"timeout":"30s","expires_in":"1h","user":"nobody",
            "env":{"K":"V"},"cwd":"/","stdin":"text","limits":{"memory":"256M","cpu":"50%","tasks":64,"output":"256M"},
            "umask":"0027","nice":5,"oom_score":500,"keep_strays":true,"stop_signal":"INT","stop_only_main":true,
            "grace":"200ms","idempotent":true}"#;
        let request: CommandRequest = serde_json::from_str(text).unwrap();
        let agents: Vec<Name> = vec!["web1".parse().unwrap()];
        let job = JobRequest::new(agents.clone(), request.clone());
        let sent = serde_json::to_value(&job).unwrap();
        let mut alone = serde_json::to_value(&request).unwrap();
        alone["agents"] = serde_json::json!(["web1"]);
        assert_eq!(sent, alone, "the same fields on the wire");
        assert_eq!(job.split(), (agents, request));
    }

    #[test]
    fn a_secret_is_found_wherever_it_may_stand() {
        let has = |fields: &str| {
            let text = format!(r#"{{"operation":"command.run"{fields}}}"#);
            serde_json::from_str::<CommandRequest>(&text).unwrap().has_secrets()
        };
        assert!(!has("") && !has(r#","env":{"A":"secret"},"stdin":"x""#));
        for fields in [
            r#","env":{"A":"b","C":{"secret":"d"}}"#,
            r#","stdin":{"secret":"x"}"#,
            r#","stdin_b64":{"secret":"eA=="}"#,
        ] {
            assert!(has(fields), "{fields}");
        }
    }

    #[test]
    fn a_signal_is_written_with_quotes_or_without() {
        for (text, expected) in
            [("\"INT\"", Some("INT")), ("2", Some("2")), ("\"SIGHUP\"", Some("SIGHUP")), ("null", None)]
        {
            let text = format!(r#"{{"operation":"x","stop_signal":{text}}}"#);
            let request: CommandRequest = serde_json::from_str(&text).unwrap();
            assert_eq!(request.stop_signal.as_deref(), expected, "{text}");
        }
        for bad in ["-2", "true", "[]", "2.5"] {
            let text = format!(r#"{{"operation":"x","stop_signal":{bad}}}"#);
            assert!(serde_json::from_str::<CommandRequest>(&text).is_err(), "{bad}");
        }
    }
}

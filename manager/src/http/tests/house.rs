//! A service on a temporary store, a caller of each scope, and an agent that is played by the test.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, StatusCode};
use api::problem::Problem;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use bytes::Bytes;
use common::clock::unix_ms;
use common::id::{CommandId, Generation, Name, Uid};
use common::model::{Outcome, StreamName};
use common::shutdown::{Shutdown, Tasks};
use serde_json::Value;
use store::Store;
use store::types::{AckAnswer, Actor, Chunk, Connect, DueKind, End, Gap, Reported, Scope, StreamEnd, Taker, everybody};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::ca::Authority;
use crate::fanout::Wake;
use crate::http::gate::Door;
use crate::http::{self, Bound, HttpConfig};
use crate::metrics::Metrics;
use crate::papers::Papers;
use crate::registry::Registry;
use crate::service::seals::Seals;
use crate::service::site::Push;
use crate::service::{Caller, Parts, Service, Settings};

pub(super) const AGENT: &str = "web1";

pub(super) struct House {
    pub(super) service: Service,
    pub(super) store: Store,
    pub(super) app: Router,
    pub(super) shutdown: Shutdown,
    pub(super) tasks: Tasks,
    pub(super) folder: TempDir,
    pub(super) admin: String,
    pub(super) run: String,
    pub(super) read: String,
    pub(super) ca_pem: String,
    papers: Arc<Papers>,
    journal: Uid,
    generation: Generation,
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    #[track_caller]
    pub(super) fn problem(&self, status: u16, code: &str) -> Problem {
        let problem: Problem = serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}: {}", self.status, String::from_utf8_lossy(&self.body)));
        assert_eq!((self.status.as_u16(), problem.code.as_str()), (status, code), "{problem:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(problem.status, status);
        problem
    }
}

impl House {
    /// A house with the agent [`AGENT`], which is connected as far as the store knows.
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let now = Duration::from_millis(unix_ms());
        let authority = Arc::new(Authority::open(folder.path(), &store.identity().cluster, now).unwrap());
        let papers = Arc::new(Papers::new(Arc::clone(&authority), "m1".parse().unwrap(), Vec::new()).unwrap());
        let shutdown = Shutdown::new();
        let service = Service::new(Parts {
            store: store.clone(),
            registry: Registry::new(),
            papers: Arc::clone(&papers),
            settings: Settings {
                link_addresses: vec!["127.0.0.1:7051".to_owned()],
                seals: Seals::of(&[7; 32]).unwrap(),
                ..Settings::default()
            },
            metrics: Arc::new(Metrics::default()),
            shutdown: shutdown.clone(),
            wake: Wake::new(),
        });
        let actor = Actor("test".to_owned());
        let mut tokens = Vec::new();
        for (name, scope) in [("admin", Scope::Admin), ("run", Scope::Run), ("read", Scope::Read)] {
            tokens.push(service.make_token(name, scope, vec!["admin".to_owned()], None, &actor).await.unwrap().1);
        }
        let [admin, run, read] = tokens.try_into().unwrap();
        let name: Name = AGENT.parse().unwrap();
        let (agent, _) = store.ensure_agent(&name, &actor, unix_ms()).await.unwrap();
        let connect = Connect {
            name,
            generation: agent.generation,
            journal: Uid::random(),
            boot_id: "boot".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            version: "0".to_owned(),
            isolation: "best_effort".to_owned(),
            cores: 1,
            memory_bytes: 1,
            labels: Default::default(),
            spki: None,
        };
        let journal = connect.journal;
        store.agent_connected(connect, unix_ms()).await.unwrap();
        service.set_ready();
        Self {
            app: http::routes::app(service.clone()),
            ca_pem: authority.bundle_pem(),
            generation: agent.generation,
            tasks: Tasks::new(),
            service,
            store,
            shutdown,
            folder,
            admin,
            run,
            read,
            papers,
            journal,
        }
    }

    /// Makes a token with these roles; answers its id and its text.
    pub(super) async fn token(&self, name: &str, scope: Scope, roles: &[&str]) -> (String, String) {
        self.token_for(name, scope, roles, None).await
    }

    pub(super) async fn token_for(
        &self,
        name: &str,
        scope: Scope,
        roles: &[&str],
        ttl: Option<Duration>,
    ) -> (String, String) {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let made = self.service.make_token(name, scope, roles, ttl, &Actor("test".to_owned())).await;
        let (token, text) = made.unwrap();
        (token.id, text)
    }

    /// Puts a site in force.
    pub(super) async fn site(&self, files: &[(&str, &str)]) -> u64 {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        let push = Push { files, ..Push::default() };
        let pushed = self.service.site_push(&Caller::local(0), push).await.unwrap();
        pushed.revision.map_or_else(|| self.service.rights().revision(), |revision| revision.number)
    }

    /// Makes an agent that never connects.
    pub(super) async fn agent(&self, name: &str) {
        self.store.ensure_agent(&name.parse().unwrap(), &Actor("test".to_owned()), unix_ms()).await.unwrap();
    }

    /// A request over TLS with an operator's certificate.
    pub(super) fn with_certificate(&self, method: Method, path: &str, name: &str, generation: u64) -> Request<Body> {
        let mut request = self.request(method, path, "", None);
        request.extensions_mut().insert(Door::Certificate {
            peer: ([127, 0, 0, 1], 1).into(),
            name: name.parse().unwrap(),
            generation: Generation(generation),
        });
        request
    }

    /// The certificate authority of the house.
    pub(super) fn authority(&self) -> &Arc<Authority> {
        self.papers.authority()
    }

    /// Opens both doors.
    pub(super) async fn open(&self) -> Bound {
        self.open_for(100, 100).await
    }

    pub(super) async fn open_for(&self, max_connections: usize, max_connections_per_address: usize) -> Bound {
        let config = HttpConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            socket: Some(self.folder.path().join("api.sock")),
            max_connections,
            max_connections_per_address,
        };
        http::serve(config, self.service.clone(), self.papers.api(), &self.shutdown, &self.tasks).await.unwrap()
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Response {
        self.app.clone().oneshot(request).await.unwrap()
    }

    pub(super) fn request(&self, method: Method, path: &str, token: &str, body: Option<&str>) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_owned()))).unwrap()
    }

    pub(super) async fn call(&self, method: Method, path: &str, token: &str, body: Option<&str>) -> Answer {
        answer(self.send(self.request(method, path, token, body)).await).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &self.admin, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Answer {
        self.call(Method::POST, path, &self.admin, Some(body)).await
    }

    /// Submits `true` and answers its id.
    pub(super) async fn submit(&self) -> CommandId {
        let body = r#"{"operation":"command.run","args":{"run":["true"]}}"#;
        let answer = self.post(&format!("/agents/{AGENT}/commands"), body).await;
        assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
        CommandId(answer.json()["id"].as_u64().unwrap())
    }

    /// Takes everything that waits for the agent and accepts it, as the link would.
    pub(super) async fn accept(&self) -> Vec<Uid> {
        let name: Name = AGENT.parse().unwrap();
        let resend = Duration::from_secs(10);
        let (generation, journal) = (self.generation, self.journal);
        let taker = Taker { agent: name.clone(), generation, journal, limit: 100, resend };
        let due = self.store.due(taker, &everybody(), unix_ms()).await.unwrap();
        let mut taken = Vec::new();
        for due in due {
            if matches!(due.what, DueKind::Send(_)) {
                self.store.acked(&due.uid, &name, AckAnswer::Accepted, unix_ms()).await.unwrap();
                taken.push(due.uid);
            }
        }
        taken
    }

    /// Writes bytes of a stream at an offset.
    pub(super) async fn write(&self, command: CommandId, stream: StreamName, offset: u64, data: impl Into<Bytes>) {
        let chunk = Chunk { command, stream, offset, data: data.into(), gap: 0 };
        self.store.append_output(vec![chunk]).unwrap().await.unwrap();
    }

    /// Writes a gap.
    pub(super) async fn lose(&self, command: CommandId, stream: StreamName, offset: u64, gap: u64) {
        let chunk = Chunk { command, stream, offset, data: Bytes::new(), gap };
        self.store.append_output(vec![chunk]).unwrap().await.unwrap();
    }

    /// Reports the end: exit code 0, with streams of these lengths.
    pub(super) async fn end(&self, uid: &Uid, stdout: u64, stderr: u64, gaps: Vec<Gap>) {
        let end = End {
            outcome: Outcome::Succeeded,
            changed: true,
            exit_code: Some(0),
            signal: None,
            core_dumped: false,
            oom: false,
            error: None,
            duration_us: Some(1_500),
            cpu_us: Some(500),
            memory_peak: None,
            io_read: None,
            io_written: None,
            tasks_peak: None,
            flags: Vec::new(),
            value: None,
            started_ms: None,
            finished_ms: None,
            cancelled_by: None,
            cancel_reason: None,
            lengths_are_lower_bounds: false,
        };
        let stream = |name, length, gaps| StreamEnd { name, length, gaps, segments: Vec::new() };
        let streams = vec![stream(StreamName::Stdout, stdout, gaps), stream(StreamName::Stderr, stderr, Vec::new())];
        let reported = Reported { end, streams, isolation: Some("best_effort".to_owned()) };
        self.store.result(uid, &AGENT.parse().unwrap(), reported, unix_ms()).await.unwrap();
    }
}

/// Reads an answer to its end.
pub(super) async fn answer(response: Response) -> Answer {
    let (head, body) = response.into_parts();
    let body = to_bytes(body, 100 * 1024 * 1024).await.unwrap();
    Answer { status: head.status, headers: head.headers, body }
}

//! `paprika login` against servers that are what they should be, and against all others: what was written, and what the
//! server heard.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use common::id::Name;
use common::pin::Pin;
use common::tls::{self, CertificateDer, TlsAcceptor, chain_from_pem};
use testkit::ground::not_run;
use testkit::pki::{Leaf, Pki};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::house::{House, PAPRIKA, Running, text};

const WHOAMI: &str = r#"{"actor":"alice","via":"token","scope":"run","roles":["deployer"],"permissions":["agent.read"],"cluster":"home"}"#;
const TOKEN: &str = "paprika_0123_hunter2hunter2";

/// A server that shows a chain and writes down what it hears above TLS.
struct Server {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Debug, Default, Clone)]
struct Heard {
    connections: usize,
    bytes: Vec<u8>,
}

impl Server {
    /// Shows a certificate for a manager by `signer`, and behind it what else is given.
    fn start(signer: &Pki, behind: &[CertificateDer<'static>], status: &'static str) -> Self {
        let cluster: Name = "home".parse().unwrap();
        let own = signer.issue(&Leaf::manager(&cluster, &"m1".parse().unwrap()), signer).unwrap();
        let mut chain = own.chain;
        chain.extend(behind.iter().cloned());
        let config = tls::api_server(chain, own.key, own.roots).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        runtime.spawn(serve(listener, TlsAcceptor::from(config), Arc::clone(&heard), status));
        Self { address, heard, _runtime: runtime }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, heard: Arc<Mutex<Heard>>, status: &'static str) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        heard.lock().unwrap().connections += 1;
        let Ok(mut stream) = acceptor.accept(socket).await else { continue };
        let mut block = [0; 4096];
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut block).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    request.extend_from_slice(&block[..count]);
                    heard.lock().unwrap().bytes.extend_from_slice(&block[..count]);
                }
            }
        }
        if request.is_empty() {
            continue;
        }
        let body = if status.starts_with("200") {
            WHOAMI.to_owned()
        } else {
            r#"{"type":"t","title":"who are you?","status":401,"code":"unauthorized"}"#.to_owned()
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

fn authority(pki: &Pki) -> CertificateDer<'static> {
    chain_from_pem(pki.ca_pem().as_bytes()).unwrap().remove(0)
}

/// An operator's home folder.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(".config/paprika").join(name)
    }

    fn paprika(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(PAPRIKA);
        command.args(args).env("HOME", self.folder.path());
        for name in ["XDG_CONFIG_HOME", "PAPRIKA_API", "PAPRIKA_TOKEN", "PAPRIKA_CA", "PAPRIKA_CERT", "PAPRIKA_KEY"] {
            command.env_remove(name);
        }
        Running::start_with_input(&mut command, input.as_bytes()).finish()
    }

    fn login(&self, url: &str, args: &[&str]) -> Output {
        self.paprika(&[&["login", url, "--token-file", "-"], args].concat(), &format!("{TOKEN}\n"))
    }

    /// Nothing at all was written.
    fn is_untouched(&self) -> bool {
        !self.folder.path().join(".config").exists()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_right_pin_logs_in_and_everything_written_is_for_its_owner_alone() {
    let pki = Pki::foreign().unwrap();
    let server = Server::start(&pki, &[authority(&pki)], "200 OK");
    let (home, pin) = (Home::new(), Pin::of(&authority(&pki)).to_string());
    let out = home.login(&server.url(), &["--pin", &pin, "--name", "prod"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("alice"), "{}", text(&out.stdout));
    let heard = text(&server.heard().bytes);
    assert!(heard.starts_with("GET /whoami ") && heard.contains(&format!("Bearer {TOKEN}")), "{heard}");
    for file in ["config.yml", "prod.ca.pem", "prod.token"] {
        assert_eq!(mode(&home.at(file)), 0o600, "{file}");
    }
    let config = fs::read_to_string(home.at("config.yml")).unwrap();
    assert!(config.contains("current: prod") && !config.contains("hunter2"), "{config}");
    assert_eq!(chain_from_pem(&fs::read(home.at("prod.ca.pem")).unwrap()).unwrap(), [authority(&pki)]);

    let again = home.login(&server.url(), &["--pin", &pin, "--name", "prod"]);
    assert_eq!(again.status.code(), Some(2), "never in silence");
    assert!(text(&again.stderr).contains("--force"), "{}", text(&again.stderr));
    assert_eq!(fs::read_to_string(home.at("config.yml")).unwrap(), config);
    assert_eq!(home.login(&server.url(), &["--pin", &pin, "--name", "prod", "--force"]).status.code(), Some(0));
    assert_eq!(home.paprika(&["whoami"], "").status.code(), Some(0), "the context is the current one");
}

#[test]
fn a_server_without_the_pin_hears_nothing_and_nothing_is_written() {
    let (pki, other) = (Pki::foreign().unwrap(), Pki::foreign().unwrap());
    let pin = Pin::of(&authority(&pki)).to_string();
    // Another authority, and one that shows the right authority without a certificate of it: anybody has that from a token.
    for behind in [vec![authority(&other)], vec![authority(&pki)], vec![authority(&other), authority(&pki)], vec![]] {
        let server = Server::start(&other, &behind, "200 OK");
        let home = Home::new();
        let out = home.login(&server.url(), &["--pin", &pin]);
        assert_eq!(out.status.code(), Some(5), "{}", text(&out.stderr));
        assert!(text(&out.stderr).contains("no trusted connection"), "{}", text(&out.stderr));
        assert!(!text(&out.stderr).contains("hunter2"));
        let heard = server.heard();
        assert!(heard.connections > 0 && heard.bytes.is_empty(), "{heard:?}");
        assert!(home.is_untouched());
    }
}

#[test]
fn where_nobody_can_be_asked_a_pin_or_a_ca_is_needed() {
    let pki = Pki::foreign().unwrap();
    let server = Server::start(&pki, &[authority(&pki)], "200 OK");
    let home = Home::new();
    let out = home.login(&server.url(), &[]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("--pin"), "{}", text(&out.stderr));
    assert!(server.heard().connections == 0 && home.is_untouched());
    let ca = home.folder.path().join("ca.pem");
    fs::write(&ca, pki.ca_pem()).unwrap();
    let out = home.login(&server.url(), &["--ca", ca.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let config = fs::read_to_string(home.at("config.yml")).unwrap();
    assert!(config.contains("127.0.0.1:") && config.contains("ca.pem"), "{config}");
}

/// Runs the line on a terminal of its own, where a person types `typed`; `None` where the host has no `script`.
fn on_a_terminal(home: &Home, line: &str, typed: &str) -> Option<Output> {
    Command::new("script").arg("--version").output().ok()?;
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", line, "/dev/null"]).env("HOME", home.folder.path());
    command.env_remove("XDG_CONFIG_HOME").env_remove("PAPRIKA_API");
    Some(Running::start_with_input(&mut command, typed.as_bytes()).finish())
}

#[test]
fn a_person_compares_the_pin_before_anything_is_sent() {
    let pki = Pki::foreign().unwrap();
    let pin = Pin::of(&authority(&pki)).to_string();
    for (typed, code) in [("yes\n", 0), ("no\n", 1), ("\n", 1), ("y\n", 1)] {
        let server = Server::start(&pki, &[authority(&pki)], "200 OK");
        let home = Home::new();
        let token = home.folder.path().join("token");
        fs::write(&token, TOKEN).unwrap();
        let line = format!("{PAPRIKA} login {} --token-file {}", server.url(), token.display());
        let Some(out) = on_a_terminal(&home, &line, typed) else {
            not_run(env!("CARGO_TARGET_TMPDIR"), "login::a_person_compares_the_pin", "there is no `script`").unwrap();
            return;
        };
        let screen = text(&out.stdout);
        assert_eq!(out.status.code(), Some(code), "{typed:?}: {screen}");
        assert!(screen.contains(&pin), "{screen}");
        assert_eq!((server.heard().bytes.is_empty(), home.is_untouched()), (code != 0, code != 0), "{screen}");
    }
}

#[test]
fn a_credential_that_is_refused_leaves_no_context() {
    let pki = Pki::foreign().unwrap();
    let server = Server::start(&pki, &[authority(&pki)], "401 Unauthorized");
    let (home, pin) = (Home::new(), Pin::of(&authority(&pki)).to_string());
    let out = home.login(&server.url(), &["--pin", &pin]);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
    assert!(home.is_untouched() && !text(&out.stderr).contains("hunter2"), "{}", text(&out.stderr));
    let nothing = home.paprika(&["login", &server.url(), "--pin", &pin], "");
    assert_eq!(nothing.status.code(), Some(2), "{}", text(&nothing.stderr));
    assert!(text(&nothing.stderr).contains("--token-file"), "{}", text(&nothing.stderr));
    let nobody = home.login("https://127.0.0.1:1", &["--pin", &pin]);
    assert_eq!(nobody.status.code(), Some(5), "{}", text(&nobody.stderr));
}

#[test]
fn a_real_manager_is_logged_in_to_by_the_pin_of_its_authority() {
    let house = House::with_agents(1);
    let api = house.variables().into_iter().find(|(name, _)| name == "PAPRIKA_API").unwrap().1;
    let pin = house.json(&["ca", "show", "-o", "json"])["trusted"][0]["sha256"].as_str().unwrap().to_owned();
    let secret = text(&house.paprika(&["token", "new", "ci", "--scope", "read"]).stdout);
    let home = Home::new();
    let out = home.paprika(&["login", &api, "--pin", &pin, "--name", "here", "--token-file", "-"], &secret);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let agents = home.paprika(&["agents", "-o", "json"], "");
    assert!(text(&agents.stdout).contains("dev-1"), "{}", text(&agents.stderr));
    let denied = home.paprika(&["run", "dev-1", "--", "true"], "");
    assert_eq!(denied.status.code(), Some(125));
    assert!(text(&denied.stderr).contains("this verb needs command.run"), "{}", text(&denied.stderr));
    let wrong = Home::new();
    let out = wrong.login(&api, &["--pin", &"0".repeat(64)]);
    assert!(out.status.code() == Some(5) && wrong.is_untouched(), "{}", text(&out.stderr));
}

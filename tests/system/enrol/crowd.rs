//! Many hosts with one limited token at once: exactly as many get in as it allows.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::joins::JoinTokenRequest;
use common::backoff::Backoff;
use common::handshake::{JoinParams, WelcomeError, join_hello, read_issued};
use common::join_token::JoinToken;
use common::limits::MAX_FRAME_BEFORE_HELLO;
use common::link::{Lane, LinkError, Reader, Writer};
use common::shutdown::Tasks;
use common::tls::{TlsConnector, link_client_joining, manager_name, new_key, system_clock};
use common::wire::bye::Code;
use testkit::{House, HouseOptions};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Hosts in one run; of ten, eight are let in.
const HOSTS: usize = 60;
/// Asks for more of them (docs/testing.md).
const ASKED: &str = "PAPRIKA_JOIN_CROWD";
/// For any crowd up to five hundred.
const BOUND: Duration = Duration::from_secs(60);

/// Whether a host was let in; an error is one that it would come back after.
async fn knock(token: &JoinToken, name: &str) -> anyhow::Result<bool> {
    let key = new_key()?;
    let mut pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
    loop {
        match ask(token, name, &key.csr).await {
            Ok(()) => return Ok(true),
            Err(Some(Code::AuthFailed)) => return Ok(false),
            // Asked to come back, or cut off in the crowd: with the same key, so that nothing is consumed twice.
            Err(_) => sleep(pauses.next()).await,
        }
    }
}

async fn ask(token: &JoinToken, name: &str, csr: &[u8]) -> Result<(), Option<Code>> {
    let talk = async {
        let config = link_client_joining(token.pin, system_clock()).map_err(drop)?;
        let address = token.addresses.first().ok_or(())?;
        let tcp = TcpStream::connect(address).await.map_err(drop)?;
        let tls = TlsConnector::from(config).connect(manager_name(), tcp).await.map_err(drop)?;
        let (read, write) = tokio::io::split(tls);
        let (mut reader, mut writer) = (Reader::new(read, MAX_FRAME_BEFORE_HELLO), Writer::new(write));
        let name = name.parse().map_err(drop)?;
        let (token_id, secret) = (token.id.as_str(), &token.secret);
        let params = JoinParams { name: &name, token_id, secret, csr, agent_version: "crowd" };
        writer.push(Lane::Control, join_hello(&params));
        let frame = async {
            writer.flush().await?;
            reader.next().await
        };
        let frame: Result<_, LinkError> = frame.await;
        frame.map_err(drop)?.ok_or(())
    };
    let heard: Result<Result<_, ()>, _> = timeout(Duration::from_secs(20), talk).await;
    let frame = heard.map_err(|_| None)?.map_err(|()| None)?;
    match read_issued(&frame) {
        Ok(_) => Ok(()),
        Err(WelcomeError::Refused { code, .. }) => Err(Some(code)),
        Err(WelcomeError::Protocol(_)) => Err(None),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_with_one_limited_token_gets_exactly_as_many_places_as_it_has() -> anyhow::Result<()> {
    let hosts = std::env::var(ASKED).ok().map_or(Ok(HOSTS), |text| text.parse())?;
    let uses = hosts * 8 / 10;
    let house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))).await?;
    let wish = JoinTokenRequest { uses: Some(uses.try_into()?), ..JoinTokenRequest::default() };
    let made = house.client().create_join_token(&wish).await?;
    let token: JoinToken = made.text.parse()?;
    let before = Instant::now();
    let tasks = Tasks::new();
    // Each host says one word at its end.
    let (told, mut heard) = mpsc::channel(hosts);
    for number in 0..hosts {
        let (token, told) = (token.clone(), told.clone());
        tasks.spawn("host", async move {
            let _ = told.send(knock(&token, &format!("crowd{number}")).await).await;
        });
    }
    drop(told);
    let mut joined = 0;
    let all = async {
        while let Some(one) = heard.recv().await {
            joined += usize::from(one?);
        }
        anyhow::Ok(())
    };
    timeout(BOUND, all).await.context("the crowd was not served in time")??;
    let span = before.elapsed();
    ensure!(joined == uses, "{joined} of {hosts} joined with {uses} places");
    let mut agents = 0;
    let mut after = None;
    loop {
        let page = house.client().agents(after.as_deref(), Some(200)).await?;
        agents += page.items.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    ensure!(agents == uses, "{agents} agents of {uses}");
    // Only the runner shows it, and only when it is asked to.
    let _ = writeln!(std::io::stderr(), "{hosts} hosts, {uses} places: {span:?}");
    house.close().await
}

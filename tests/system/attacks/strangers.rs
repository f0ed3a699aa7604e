//! A flood of strangers: the log stays readable, every one of them is counted, and an honest agent gets in.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::{House, HouseOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Connections that are no agents; `PAPRIKA_STRANGERS` sets another number, a hundred thousand in the longer run.
const STRANGERS: u64 = 5_000;
/// Connections at a time: below the limit of descriptors of any host.
const AT_ONCE: usize = 200;

/// Says something that is no TLS, and waits to be sent away.
async fn knock(at: SocketAddr, number: u64) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(at).await?;
    let words: &[u8] = match number % 3 {
        0 => b"\x16\x03\x01\x00\x05hello-hello-hello",
        1 => b"GET / HTTP/1.1\r\n\r\n",
        _ => b"\x00\x00\x00\x01\x00\x00\x00",
    };
    socket.write_all(words).await?;
    socket.shutdown().await?;
    let mut answer = Vec::new();
    // Whether it is told why or cut off is the same here.
    let _ = timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
    Ok(())
}

async fn counted(house: &House) -> anyhow::Result<u64> {
    let answer = testkit::web::call(house, "GET", "/metrics", b"").await?;
    let text = String::from_utf8(answer.body)?;
    let line = text.lines().find(|line| line.starts_with("paprika_strangers_total")).context("the counter")?;
    Ok(line.rsplit(' ').next().context("its value")?.parse()?)
}

#[tokio::test]
async fn strangers_fill_no_log_and_are_counted_to_the_last() -> anyhow::Result<()> {
    let strangers = match std::env::var("PAPRIKA_STRANGERS") {
        Ok(text) => text.parse()?,
        Err(_) => STRANGERS,
    };
    let mut house = House::start(HouseOptions::new(env!("CARGO_BIN_EXE_paprika"))).await?;
    let before = counted(&house).await?;
    let lines_before = house.manager_log().lines().count();
    let at = house.link();
    let began = Instant::now();
    let mut knocking: JoinSet<std::io::Result<()>> = JoinSet::new();
    let mut failed = 0;
    for number in 0..strangers {
        if knocking.len() >= AT_ONCE {
            failed += u64::from(knocking.join_next().await.context("one of them")??.is_err());
        }
        knocking.spawn(knock(at, number));
    }
    while let Some(one) = knocking.join_next().await {
        failed += u64::from(one?.is_err());
    }
    let took = began.elapsed();
    // Those whose connection failed on our side were never accepted, or were reset in the middle of a word.
    let wanted = strangers - failed;
    testkit::wait::soon("every stranger to be counted", async || {
        let seen = counted(&house).await? - before;
        Ok((wanted..=strangers).contains(&seen).then_some(()))
    })
    .await?;
    ensure!(failed * 100 < strangers, "{failed} of {strangers} could not even connect");
    let lines = (house.manager_log().lines().count() - lines_before) as u64;
    // A few lines each second, whatever comes.
    let allowed = 20 * (took.as_secs() + 2);
    ensure!(lines <= allowed, "{lines} lines in {took:?}");
    ensure!(lines <= 1_000, "{lines} lines");
    // And an honest agent gets in.
    house.make_agent("web1").await?;
    house.start_agent("web1", &[])?;
    house.connected("web1").await?;
    house.close().await
}

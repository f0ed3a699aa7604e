use std::time::{Duration, Instant};
use store::{Store, types::*};
use common::id::*;
#[tokio::main(flavor="multi_thread", worker_threads=2)]
async fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let s = Store::open(&dir).await.unwrap();
    let a: Name = "web1".parse().unwrap();
    let (ag,_) = s.ensure_agent(&a, &Actor("x".into()), 1).await.unwrap();
    for (callers, n) in [(1, 3000u32), (4, 8000), (64, 60000), (256, 60000)] {
        for keys in [false, true] {
        let t = Instant::now();
        let mut js = tokio::task::JoinSet::new();
        for c in 0..callers { let s = s.clone(); let a = a.clone(); js.spawn(async move {
            for i in 0..n/callers {
                let r = Request{operation:"command.run".into(), args:r#"{"run":["true"]}"#.into(), timeout:None,user:None,env:Default::default(),cwd:None,stdin:None,limits:Default::default(),idempotent:false};
                s.submit(Submit{agents:vec![a.clone()],request:r,expires_at:1<<50,actor:Actor("admin".into()),as_job:false,idempotency:keys.then(|| Idempotency{key:format!("{callers}-{c}-{i}-aaaaaaaaaaaaaaaaaaa"),fingerprint:[1;32]}),now:5}).await.unwrap();
            }
        });}
        while let Some(r) = js.join_next().await { r.unwrap(); }
        println!("callers {callers} keys {keys}: {:.0}/s", n as f64/t.elapsed().as_secs_f64());
        }
    }
    let t = Instant::now();
    for i in 1..5000u64 { s.command(CommandId(i)).await.unwrap().unwrap(); }
    println!("single GET {:?}", t.elapsed()/5000);
    let t = Instant::now(); let mut n=0; let mut k=0;
    while n < 20000 { let d = s.due(&a, ag.generation, Uid([1;16]), 100, Duration::from_secs(10), 6).await.unwrap(); n+=d.len(); k+=1; }
    println!("due 100: {:?} each ({n})", t.elapsed()/k);
    let t = Instant::now(); for _ in 0..200 { s.due_agents(Duration::from_secs(10), 6).await.unwrap(); } println!("due_agents {:?}", t.elapsed()/200);
    let t = Instant::now();
    let data = bytes::Bytes::from(vec![7u8; 32768]);
    let mut q = std::collections::VecDeque::new();
    for i in 0..8192u64 { q.push_back(s.append_output(vec![Chunk{command:CommandId(1),stream:common::model::StreamName::Stdout,offset:i*32768,data:data.clone(),gap:0}]).unwrap());
      if q.len()>32 { q.pop_front().unwrap().await.unwrap(); } }
    while let Some(x)=q.pop_front(){x.await.unwrap();}
    println!("append 256 MiB: {:.0} MiB/s", 256.0/t.elapsed().as_secs_f64());
    let t = Instant::now(); s.sync_output().await.unwrap(); println!("sync {:?}", t.elapsed());
    let t = Instant::now(); let mut o=0; while let OutputRead::Bytes(b) = s.read_output(CommandId(1), common::model::StreamName::Stdout, o, 1<<18).await.unwrap() { o+=b.len() as u64; }
    println!("read {:.0} MiB/s", o as f64/1048576.0/t.elapsed().as_secs_f64());
    let t = Instant::now();
    for i in 0..2000u64 { s.append_output(vec![Chunk{command:CommandId(2),stream:common::model::StreamName::Stdout,offset:i*20,data:bytes::Bytes::from_static(b"12345678901234567890"),gap:0}]).unwrap().await.unwrap(); }
    println!("append one small, awaited: {:?}", t.elapsed()/2000);
    println!("rss {}", std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmRSS")).unwrap());
}

//! The client against scripted frontends on loopback.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use distci_model::config::JobConfig;
use distci_model::id::{Attempt, BuildRef, TaskName};
use distci_model::outcome::{Outcome, TaskResult};
use distci_model::wire::{
    BeatRequest, CommitReply, CommitRequest, Held, JobView, Standing, TriggerRequest,
};
use futures::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::{ConsoleFrom, new_request_id};

/// What a frontend was asked.
#[derive(Debug, Clone)]
struct Asked {
    head: String,
    body: Vec<u8>,
}

impl Asked {
    fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A frontend that gives its answers in order, one a connection, and keeps what it was asked.
struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _serving: JoinSet<()>,
}

impl Fake {
    async fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut answers: VecDeque<String> = answers.iter().map(ToString::to_string).collect();
        let mut serving = JoinSet::new();
        let kept = asked.clone();
        serving.spawn(async move {
            while let Some(answer) = answers.pop_front() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                kept.lock().unwrap().push(request);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self {
            address,
            asked,
            _serving: serving,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> Asked {
    let mut bytes = Vec::new();
    let end = loop {
        stream.read_buf(&mut bytes).await.unwrap();
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
    };
    let mut body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).unwrap();
    let mut asked = Asked { head, body: vec![] };
    let length: usize = asked
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    while body.len() < length {
        stream.read_buf(&mut body).await.unwrap();
    }
    asked.body = body;
    asked
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
    )
}

fn ok(body: &str) -> String {
    answer("200 OK", "", body)
}

fn problem(status: &str, detail: &str) -> String {
    let code = &status[..3];
    let body =
        format!(r#"{{"type":"urn:distci:x","title":"t","status":{code},"detail":"{detail}"}}"#);
    answer(status, "", &body)
}

const BUILD: &str = r#"{"job":"hello","number":7}"#;

fn client(fakes: &[&Fake]) -> Client {
    let token = "s3cret".parse().unwrap();
    let addresses: Vec<String> = fakes.iter().map(|fake| fake.url()).collect();
    // In the order given, so that a test knows who is asked.
    let order = (0..addresses.len()).collect();
    Client::over(addresses, Some(token), None, |addresses| {
        Frontends::in_order(addresses, order)
    })
    .unwrap()
}

async fn trigger(client: &Client) -> Result<BuildRef, ClientError> {
    let id = new_request_id()?;
    let job = "hello".parse().unwrap();
    let wish = TriggerRequest::default();
    Ok(client.trigger(&job, &wish, &id).await?.build().unwrap())
}

fn held() -> Held {
    Held {
        ticket: "aaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbb".parse().unwrap(),
        attempt: Attempt::new(2),
        standing: Standing::Held,
    }
}

#[tokio::test]
async fn a_call_carries_the_token_and_its_request_id() {
    let fake = Fake::start(&[&ok(BUILD)]).await;
    assert_eq!(
        trigger(&client(&[&fake])).await.unwrap().to_string(),
        "hello#7"
    );
    let asked = &fake.asked()[0];
    assert_eq!(asked.line(), "POST /api/v1/jobs/hello/builds HTTP/1.1");
    assert_eq!(asked.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(asked.header("idempotency-key").map(str::len), Some(32));
    assert_eq!(asked.body, br#"{"parameters":{}}"#);
}

#[tokio::test]
async fn a_dead_frontend_is_passed_over_and_not_asked_first_again() {
    let dead = Fake::start(&[]).await;
    let alive = Fake::start(&[&ok(BUILD), &ok(BUILD)]).await;
    let client = client(&[&dead, &alive]);
    trigger(&client).await.unwrap();
    assert_eq!(client.shared.frontends.choose(), 1);
    trigger(&client).await.unwrap();
}

#[tokio::test]
async fn a_silent_frontend_costs_seconds_and_is_then_passed_over() {
    // A listener that nobody serves: the system accepts, and no answer ever comes.
    let paused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = Fake::start(&[&ok(BUILD), &ok(BUILD)]).await;
    let order = |addresses| Frontends::in_order(addresses, vec![0, 1]);
    let addresses = vec![
        format!("http://{}", paused.local_addr().unwrap()),
        alive.url(),
    ];
    let client = Client::over(addresses, None, None, order).unwrap();
    trigger(&client).await.unwrap();
    assert_eq!(client.shared.frontends.choose(), 1);
    trigger(&client).await.unwrap();
    assert_eq!(alive.asked().len(), 2);
}

#[test]
fn a_frontend_may_think_longer_when_all_are_slow() {
    let limits: Vec<u64> = (0..4).map(|round| think(round).as_secs()).collect();
    assert_eq!(limits, [4, 8, 16, 20]);
    assert_eq!(think(usize::MAX), LONGEST_THINK);
}

#[tokio::test]
async fn a_beat_is_composed_anew_for_each_try() {
    let broken = Fake::start(&[""]).await;
    let reply = ok(r#"{"standings":["lost"]}"#);
    let alive = Fake::start(&[&reply]).await;
    let tries = std::sync::atomic::AtomicU64::new(0);
    let compose = || beat(1 + tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let (heard, reply) = client(&[&broken, &alive]).beat(compose).await.unwrap();
    assert_eq!((heard, reply.standings), (beat(2), vec![Standing::Lost]));
}

#[tokio::test]
async fn a_frontend_that_tells_nobody_of_a_beat_is_passed_over() {
    let reply = |unheard: u64| ok(&format!(r#"{{"standings":["held"],"unheard":{unheard}}}"#));
    let (deaf, other) = (
        Fake::start(&[&reply(10), &reply(11)]).await,
        Fake::start(&[&reply(0)]).await,
    );
    let client = client(&[&deaf, &other]);
    for _ in 0..3 {
        client.beat(|| beat(0)).await.unwrap();
    }
    assert_eq!((deaf.asked().len(), other.asked().len()), (2, 1));
}

fn beat(wait: u64) -> BeatRequest {
    BeatRequest {
        worker: "w".parse().unwrap(),
        session: "0123abcd".parse().unwrap(),
        held: vec![held()],
        pending: Vec::new(),
        wait,
    }
}

#[tokio::test]
async fn what_is_gone_is_over_and_no_error() {
    let gone = problem("410 Gone", "it was consumed");
    let missing = problem("404 Not Found", "no such ticket");
    let fake = Fake::start(&[&gone, &gone, &gone, &missing]).await;
    let client = client(&[&fake]);
    let result = TaskResult::of(Outcome::Success);
    client.complete(&held(), &result).await.unwrap();
    client.release(&held()).await.unwrap();
    let decision = serde_json::json!({
        "checkpoint": {"revision": 1, "tasks": [], "latest": "2026-01-01T00:00:00Z"},
        "post": [], "cancel": [], "consume": [], "trigger": [], "next": {"next": "park"},
    });
    let request = CommitRequest {
        mailbox: 0,
        decision: serde_json::from_value(decision).unwrap(),
    };
    let reply = client.commit(&held(), &request).await.unwrap();
    assert_eq!(reply, CommitReply::Over);
    let error = client.release(&held()).await.unwrap_err();
    assert!(matches!(error, ClientError::NotFound(_)), "{error:?}");
}

#[tokio::test]
async fn a_store_that_is_down_is_no_missing_frontend() {
    let body = r#"{"type":"urn:distci:store-down","title":"t","status":503,"detail":"no quorum"}"#;
    let fake = Fake::start(&[&answer("503 Service Unavailable", "", body)]).await;
    let client = client(&[&fake]).with_deadline(Duration::from_millis(1));
    let error = trigger(&client).await.unwrap_err();
    assert!(matches!(error, ClientError::StoreDown { .. }), "{error:?}");
    assert!(error.is_passing());
}

#[tokio::test]
async fn a_retry_carries_the_same_request_id() {
    let broken = Fake::start(&[&problem("503 Service Unavailable", "no quorum"), ""]).await;
    let alive = Fake::start(&[&problem("500 Oops", "bug"), &ok(BUILD)]).await;
    trigger(&client(&[&broken, &alive])).await.unwrap();
    let asked: Vec<Asked> = [broken.asked(), alive.asked()].concat();
    let ids: Vec<_> = asked
        .iter()
        .map(|asked| asked.header("idempotency-key"))
        .collect();
    assert_eq!(ids.len(), 4);
    assert!(
        ids.iter().all(|id| id.is_some() && *id == ids[0]),
        "{ids:?}"
    );
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let busy = answer("429 Too Many Requests", "retry-after: 1\r\n", "");
    let fake = Fake::start(&[&busy, &ok(BUILD)]).await;
    let start = tokio::time::Instant::now();
    trigger(&client(&[&fake])).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_refusal_is_final_and_says_why() {
    for (status, name) in [
        ("400 Bad Request", "Refused"),
        ("404 Not Found", "NotFound"),
        ("409 Conflict", "Conflict"),
        ("412 Precondition Failed", "Conflict"),
        ("401 Unauthorized", "Unauthorized"),
    ] {
        let fake = Fake::start(&[&problem(status, "because"), &ok(BUILD)]).await;
        let error = trigger(&client(&[&fake])).await.unwrap_err();
        assert!(
            format!("{error:?}").starts_with(name),
            "{status}: {error:?}"
        );
        assert!(
            name == "Unauthorized" || error.to_string() == "because",
            "{error}"
        );
        assert_eq!(fake.asked().len(), 1, "{status} was retried");
    }
}

#[tokio::test]
async fn what_is_no_frontend_is_told_apart_from_one_that_lacks_something() {
    let fake = Fake::start(&[&ok("<html>")]).await;
    let error = trigger(&client(&[&fake])).await.unwrap_err();
    assert!(matches!(error, ClientError::Strange { .. }), "{error:?}");
    let fake = Fake::start(&[&answer("404 Not Found", "", "<html>")]).await;
    let error = trigger(&client(&[&fake])).await.unwrap_err();
    assert_eq!(error.to_string(), "404 Not Found <html>");
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address_and_the_reason() {
    let fake = Fake::start(&[]).await;
    let client = client(&[&fake]).with_deadline(Duration::from_millis(1));
    let error = trigger(&client).await.unwrap_err();
    assert!(error.is_passing());
    let text = error.to_string();
    assert!(
        text.contains(&fake.url()) && !text.contains("s3cret"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_begins_anew_while_there_is_hope() {
    let fake = Fake::start(&[]).await;
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let client = client(&[&fake]).with_hope(move || {
        *count.lock().unwrap() += 1;
        *count.lock().unwrap() < 3
    });
    let begun = tokio::time::Instant::now();
    assert!(trigger(&client).await.unwrap_err().is_passing());
    assert_eq!(*asked.lock().unwrap(), 3);
    assert!(begun.elapsed() > DEADLINE * 2);
}

#[tokio::test]
async fn an_upload_that_broke_is_sent_again_from_its_file() {
    let directory = std::env::temp_dir().join(format!("distci-client-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("layer");
    let content = vec![7_u8; 300_000];
    std::fs::write(&file, &content).unwrap();
    let fake = Fake::start(&["", &ok(r#"{"bytes":300000}"#)]).await;
    let stored = client(&[&fake]).put_layer(&held(), &file).await;
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(stored.unwrap(), 300_000);
    for asked in fake.asked() {
        let path = "/api/v1/tickets/aaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbb/2/layer";
        assert_eq!(asked.line(), format!("PUT {path} HTTP/1.1"));
        assert_eq!(asked.header("content-length"), Some("300000"));
        assert!(asked.body == content, "the content arrived changed");
    }
    assert_eq!(fake.asked().len(), 2);
}

#[tokio::test]
async fn a_missing_file_is_our_own_trouble() {
    let fake = Fake::start(&[]).await;
    let file = Path::new("/nonexistent/layer");
    let error = client(&[&fake]).put_layer(&held(), file).await.unwrap_err();
    assert!(matches!(error, ClientError::Local(_)), "{error:?}");
}

#[tokio::test]
async fn an_append_that_was_heard_before_is_done() {
    let moved = |length: u64| {
        answer(
            "409 Conflict",
            &format!("x-console-length: {length}\r\n"),
            "",
        )
    };
    let fake = Fake::start(&[&moved(8), &moved(3)]).await;
    let client = client(&[&fake]);
    let bytes = Bytes::from_static(b"abc");
    assert_eq!(client.append(&held(), 5, bytes.clone()).await.unwrap(), 8);
    let error = client.append(&held(), 5, bytes).await.unwrap_err();
    assert!(
        matches!(error, ClientError::ConsoleAt { length: 3 }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_console_is_read_with_what_its_headers_say() {
    let headers = "x-console-length: 9\r\nx-console-complete: true\r\nx-console-attempt: 2\r\n";
    let fake = Fake::start(&[&answer("200 OK", headers, "tail")]).await;
    let (build, task): (BuildRef, TaskName) =
        (serde_json::from_str(BUILD).unwrap(), "t".parse().unwrap());
    let (from, wait) = (
        ConsoleFrom {
            attempt: None,
            offset: 5,
        },
        Duration::from_secs(99),
    );
    let chunk = client(&[&fake])
        .console(&build, &task, from, wait)
        .await
        .unwrap();
    assert_eq!(
        (&chunk.bytes[..], chunk.length, chunk.complete),
        (&b"tail"[..], 9, true)
    );
    assert_eq!(chunk.attempt, Attempt::new(2));
    let line = "GET /api/v1/jobs/hello/builds/7/console?task=t&offset=5&wait=30 HTTP/1.1";
    assert_eq!(fake.asked()[0].line(), line);
}

#[tokio::test]
async fn a_download_that_broke_goes_on_where_it_was() {
    // The first answer promises ten bytes and ends after four; the second ignores the range.
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\n0123";
    let fake = Fake::start(&[broken, broken, &ok("0123456789")]).await;
    let build = serde_json::from_str(BUILD).unwrap();
    let download = client(&[&fake])
        .artifact(&build, "dist/a b\n.txt")
        .await
        .unwrap();
    assert_eq!(download.size, Some(10));
    let pieces: Vec<Bytes> = download.stream.try_collect().await.unwrap();
    assert_eq!(pieces.concat(), b"0123456789");
    let asked = fake.asked();
    let line = "GET /api/v1/jobs/hello/builds/7/artifacts/dist/a%20b%0A.txt HTTP/1.1";
    assert_eq!(asked[2].line(), line);
    assert_eq!(asked[2].header("range"), Some("bytes=4-"));
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_found_out_by_reading() {
    let text = r#"{"job_id":"j","tasks":[{"type":"execute-shell","params":{"script":"true"}}]}"#;
    let configuration = JobConfig::parse(text).unwrap();
    let job = configuration.job_id.clone();
    let view = JobView {
        job: job.clone(),
        revision: 4,
        configuration,
    };
    let stale = problem("412 Precondition Failed", "it has revision 4");
    let now = ok(&serde_json::to_string(&view).unwrap());
    let fake = Fake::start(&[&stale, &now, &stale, &now]).await;
    let client = client(&[&fake]);
    let set = client.set_job(&job, text.to_owned(), Some(3)).await;
    assert_eq!(set.unwrap(), view);
    let set = client.set_job(&job, text.to_owned(), Some(2)).await;
    assert!(matches!(set, Err(ClientError::Conflict(_))), "{set:?}");
    assert_eq!(fake.asked()[0].header("if-match"), Some("\"3\""));
}

#[test]
fn an_address_that_is_none_is_refused_with_its_reason() {
    for bad in [
        "",
        "localhost:80",
        "ftp://host",
        "http://me:password@host",
        "http://host/?q",
        "http://",
    ] {
        let error = Client::new(vec![bad.to_owned()], None).unwrap_err();
        assert!(
            matches!(error, ClientError::Address { .. }),
            "{bad:?}: {error:?}"
        );
    }
    assert!(Client::new(Vec::new(), None).is_err());
    let client = Client::new(vec!["http://[::1]:7171/prefix/".to_owned()], None).unwrap();
    assert_eq!(client.frontends(), ["http://[::1]:7171/prefix"]);
}

/// A file that is large enough to go straight to the store.
fn large_file(name: &str) -> std::path::PathBuf {
    let name = format!("distci-client-{name}-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, vec![7_u8; 2 << 20]).unwrap();
    file
}

fn place(store: &Fake) -> String {
    ok(&format!(r#"{{"url":"{}/blob?X-Sign=hush"}}"#, store.url()))
}

fn layer() -> (distci_model::id::BuildKey, distci_model::outcome::LayerRef) {
    let held = held();
    let layer = distci_model::outcome::LayerRef {
        ticket: held.ticket.ticket,
        attempt: held.attempt,
        build: None,
        bytes: 9,
    };
    (held.ticket.build, layer)
}

async fn read_layer(client: &Client) -> Vec<u8> {
    let (build, layer) = layer();
    let download = client.get_layer(&build, &layer).await.unwrap();
    let pieces: Vec<_> = download.stream.try_collect().await.unwrap();
    pieces.concat()
}

#[tokio::test]
async fn a_large_upload_goes_to_the_store_and_our_token_does_not() {
    let file = large_file("direct");
    let store = Fake::start(&[&ok("")]).await;
    let frontend = Fake::start(&[&place(&store)]).await;
    let stored = client(&[&frontend]).put_layer(&held(), &file).await;
    std::fs::remove_file(&file).unwrap();
    assert_eq!(stored.unwrap(), 2 << 20);
    let line = frontend.asked()[0].line().to_owned();
    assert!(
        line.starts_with("POST ") && line.contains("layer?bytes=2097152"),
        "{line}"
    );
    let put = &store.asked()[0];
    assert_eq!(put.line(), "PUT /blob?X-Sign=hush HTTP/1.1");
    assert_eq!(put.body.len(), 2 << 20);
    assert_eq!(put.header("authorization"), None);
}

#[tokio::test]
async fn an_upload_that_the_store_refuses_goes_to_the_frontend_and_so_does_the_next() {
    let file = large_file("refused");
    let store = Fake::start(&[&answer("403 Forbidden", "", "")]).await;
    let uploaded = ok(r#"{"bytes":2097152}"#);
    let frontend = Fake::start(&[&place(&store), &uploaded, &uploaded]).await;
    let client = client(&[&frontend]);
    for _ in 0..2 {
        let stored = client.put_layer(&held(), &file).await;
        assert_eq!(stored.unwrap(), 2 << 20);
    }
    std::fs::remove_file(&file).unwrap();
    let asked = frontend.asked();
    let methods: Vec<_> = asked.iter().map(|asked| &asked.line()[..4]).collect();
    assert_eq!(methods, ["POST", "PUT ", "PUT "]);
}

#[tokio::test]
async fn a_store_that_has_no_places_is_not_asked_for_each_upload() {
    let file = large_file("none");
    let uploaded = ok(r#"{"bytes":2097152}"#);
    let none = answer("204 No Content", "", "");
    let frontend = Fake::start(&[&none, &uploaded, &uploaded]).await;
    let client = client(&[&frontend]);
    for _ in 0..2 {
        client.put_layer(&held(), &file).await.unwrap();
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(frontend.asked().len(), 3);
}

#[tokio::test]
async fn a_layer_is_read_where_the_frontend_leads() {
    let store = Fake::start(&[&ok("the layer")]).await;
    let location = format!("location: {}/blob?X-Sign=hush\r\n", store.url());
    let lead = answer("307 Temporary Redirect", &location, "");
    let frontend = Fake::start(&[&lead]).await;
    assert_eq!(read_layer(&client(&[&frontend])).await, b"the layer");
    assert!(frontend.asked()[0].line().contains("?direct=true "));
    assert_eq!(store.asked()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_layer_that_breaks_off_in_the_store_goes_on_through_the_frontend() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nthe ";
    let store = Fake::start(&[half]).await;
    let location = format!("location: {}/blob?X-Sign=hush\r\n", store.url());
    let lead = answer("307 Temporary Redirect", &location, "");
    let frontend = Fake::start(&[&lead, &ok("the layer")]).await;
    assert_eq!(read_layer(&client(&[&frontend])).await, b"the layer");
    let second = &frontend.asked()[1];
    assert!(!second.line().contains("direct"), "{}", second.line());
    assert_eq!(second.header("range"), Some("bytes=4-"));
}

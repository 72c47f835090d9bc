//! The client: one exchange with one frontend, and how long each part of it may take.
//!
//! Owns the connections. Asks the frontend that answered last; after trouble, the next one. Every
//! wait has a limit, so a frontend that is paused or cut off costs seconds and then is passed over.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Request, RequestBuilder, Response, StatusCode, Url};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use crate::answer::{Answer, STALL, cause, judge, passing, stalled, unheard};
use crate::call::{Body, Call};
use crate::direct::Direct;
use crate::frontends::Frontends;
use crate::retry::{Patience, Trouble, retry};
use crate::{ClientError, Token};

/// Longest that a connection may take when there is another frontend to turn to, and when not.
const CONNECT: Duration = Duration::from_secs(1);
const CONNECT_ALONE: Duration = Duration::from_secs(5);
/// How long a frontend may think before it answers, beyond the time that it may hold a call. Twice
/// as long in each round in which all have failed: then it is not one frontend that is slow.
const THINK: Duration = Duration::from_secs(4);
pub(crate) const LONGEST_THINK: Duration = Duration::from_secs(20);
/// A held call sends nothing, so a peer that is gone without a word is noticed only by asking. It
/// is gone after this many questions at this distance, and the same time without taking bytes.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
const SILENCE: Duration = Duration::from_secs(20);
/// An upload that is slower than this many bytes a second is given up and tried elsewhere.
pub(crate) const SLOWEST_UPLOAD: u64 = 64 * 1024;
/// How long no frontend may answer, if the caller says nothing else.
const DEADLINE: Duration = Duration::from_mins(1);
/// Idle connections are few: a worker has one call for each slot and one beat.
const IDLE_CONNECTIONS: usize = 4;

/// The frontends of one DistCI. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    deadline: Duration,
    hope: Option<Hope>,
    notice: Option<Notice>,
}

/// Whether a call that came to its deadline shall have it once more.
#[derive(Clone)]
pub(crate) struct Hope(Arc<dyn Fn() -> bool + Send + Sync>);

impl Hope {
    pub(crate) fn is_left(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Hope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hope")
    }
}

/// One try of a call: which frontend, and how many times all were tried before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    frontend: usize,
    round: usize,
}

/// Takes what happened when every frontend has failed once and a call goes on trying.
pub type Notice = fn(&str);

/// What carries requests to frontends in the place of sockets. The address in a request says to which
/// of them it goes; the answer comes whole, or it is said what kept it.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Carries one request. Dropped, it is as if the connection was closed.
    fn carry(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, String>>;
}

#[derive(Debug)]
struct Shared {
    http: reqwest::Client,
    /// In the place of `http`, if there is one.
    transport: Option<Arc<dyn Transport>>,
    frontends: Frontends,
    authorization: Option<HeaderValue>,
    /// The way to the blob store, beside the frontends.
    direct: Direct,
}

impl Client {
    /// A client of these frontends, which begins with one of them at random. Connects to nobody yet.
    ///
    /// # Errors
    /// [`ClientError::Address`] if there is none, or one is no `http://` or `https://` address.
    pub fn new(frontends: Vec<String>, token: Option<Token>) -> Result<Self, ClientError> {
        Self::over(frontends, token, None, Frontends::shuffled)
    }

    /// The same whose requests go by `transport`. Files are not carried by it.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn through(
        transport: Arc<dyn Transport>,
        frontends: Vec<String>,
        token: Option<Token>,
    ) -> Result<Self, ClientError> {
        Self::over(frontends, token, Some(transport), Frontends::shuffled)
    }

    fn over(
        frontends: Vec<String>,
        token: Option<Token>,
        transport: Option<Arc<dyn Transport>>,
        order: impl FnOnce(Vec<String>) -> Frontends,
    ) -> Result<Self, ClientError> {
        let addresses = frontends
            .into_iter()
            .map(parse_address)
            .collect::<Result<Vec<Url>, _>>()?;
        let Some(first) = addresses.first() else {
            return Err(ClientError::Address {
                address: String::new(),
                detail: "none was given".to_owned(),
            });
        };
        let http = connections(&addresses).map_err(|error| ClientError::Address {
            address: first.to_string(),
            detail: cause(&error),
        })?;
        let shared = Shared {
            http,
            transport,
            frontends: order(addresses.iter().map(trim_address).collect()),
            authorization: token.and_then(Token::into_authorization),
            direct: Direct::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            deadline: DEADLINE,
            hope: None,
            notice: None,
        })
    }

    /// The same client that gives up when no frontend answered for this long.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The same client that begins its deadline anew whenever it is over and `is_left` says so: for
    /// callers that know more of why nobody answers.
    #[must_use]
    pub fn with_hope(self, is_left: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let hope = Some(Hope(Arc::new(is_left)));
        Self { hope, ..self }
    }

    /// The same client that says so when a call has to wait for a frontend.
    #[must_use]
    pub fn with_notice(self, notice: Notice) -> Self {
        let notice = Some(notice);
        Self { notice, ..self }
    }

    /// The addresses of the frontends, as they were given.
    pub fn frontends(&self) -> &[String] {
        self.shared.frontends.addresses()
    }

    /// The way to the blob store.
    pub(crate) fn store(&self) -> &Direct {
        &self.shared.direct
    }

    /// A whole answer.
    pub(crate) async fn answer(&self, call: &Call) -> Result<Answer, ClientError> {
        self.ask(|at| self.exchange_all(call, at)).await
    }

    /// The beginning of an answer; its body is still to come.
    pub(crate) async fn open(&self, call: &Call) -> Result<Response, ClientError> {
        self.ask(|at| self.exchange(call, at)).await
    }

    /// Passes a frontend over for a while, although it answers.
    pub(crate) fn avoid(&self, at: At) {
        self.shared.frontends.avoid(at.frontend, None);
    }

    /// Asks one frontend after the other, beginning with the one that answered last.
    pub(crate) async fn ask<T, A>(&self, attempt: impl Fn(At) -> A) -> Result<T, ClientError>
    where
        A: Future<Output = Result<T, Trouble>>,
    {
        let one = |tried: usize| {
            let frontend = self.shared.frontends.choose();
            let round = tried / self.frontends().len();
            let answer = attempt(At { frontend, round });
            async move { self.note(frontend, answer.await) }
        };
        let patience = Patience {
            frontends: self.frontends().len(),
            deadline: self.deadline,
            hope: self.hope.as_ref(),
            notice: self.notice,
        };
        retry(patience, one).await
    }

    /// Remembers a frontend that answered, and names one that did not, or had no token to accept.
    fn note<T>(&self, frontend: usize, answer: Result<T, Trouble>) -> Result<T, Trouble> {
        let address = &self.frontends()[frontend];
        if let Err(Trouble::Passing(mut passing)) = answer {
            self.shared.frontends.avoid(frontend, passing.after);
            passing.why = format!("{address}: {}", passing.why);
            return Err(passing.into());
        }
        self.shared.frontends.answered(frontend);
        match answer {
            Err(Trouble::Final(ClientError::Unauthorized))
                if self.shared.authorization.is_none() =>
            {
                let address = address.clone();
                Err(ClientError::NoToken { address }.into())
            }
            answer => answer,
        }
    }

    pub(crate) async fn exchange_all(&self, call: &Call, at: At) -> Result<Answer, Trouble> {
        let response = self.exchange(call, at).await?;
        timeout(STALL, Answer::read(response))
            .await
            .unwrap_or_else(|_| Err(stalled("end of the answer", STALL)))
    }

    async fn exchange(&self, call: &Call, at: At) -> Result<Response, Trouble> {
        let request = self.request(call, at.frontend).await?;
        let upload = match &call.body {
            Body::Nothing => 0,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File { bytes, .. } => *bytes,
        };
        let limit = call.held + think(at.round) + Duration::from_secs(upload / SLOWEST_UPLOAD);
        let response = timeout(limit, self.send(request))
            .await
            .map_err(|_| stalled("answer", limit))??;
        if call.direct && response.status() == StatusCode::TEMPORARY_REDIRECT {
            return Ok(response);
        }
        timeout(STALL, judge(response))
            .await
            .unwrap_or_else(|_| Err(stalled("end of the answer", STALL)))
    }

    async fn send(&self, request: Request) -> Result<Response, Trouble> {
        let Some(transport) = &self.shared.transport else {
            return self.shared.http.execute(request).await.map_err(passing);
        };
        let request = http::Request::try_from(request).map_err(passing)?;
        let (head, body) = request.into_parts();
        let Some(body) = body.as_bytes().map(Bytes::copy_from_slice) else {
            return Err(unheard("files are not carried here".to_owned()));
        };
        let carried = transport.carry(http::Request::from_parts(head, body));
        carried.await.map(Response::from).map_err(unheard)
    }

    async fn request(&self, call: &Call, frontend: usize) -> Result<Request, ClientError> {
        let address = format!("{}{}", self.frontends()[frontend], call.path.as_str());
        let mut request = self.shared.http.request(call.method.clone(), &address);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = &self.shared.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request = match &call.body {
            Body::Nothing => request,
            Body::Bytes(bytes) => request.body(bytes.clone()),
            Body::File { path, bytes } => send_file(request, path, *bytes).await?,
        };
        request.build().map_err(|error| ClientError::Address {
            address,
            detail: cause(&error.without_url()),
        })
    }
}

/// How long a frontend may think in this round.
fn think(round: usize) -> Duration {
    let doublings = u32::try_from(round).unwrap_or(u32::MAX).min(8);
    (THINK * 2_u32.pow(doublings)).min(LONGEST_THINK)
}

/// The request with the first `bytes` of a file.
pub(crate) async fn send_file(
    request: RequestBuilder,
    path: &Path,
    bytes: u64,
) -> Result<RequestBuilder, ClientError> {
    let file = tokio::fs::File::open(path).await?;
    let content = tokio::io::AsyncReadExt::take(file, bytes);
    let stream = ReaderStream::with_capacity(content, 64 * 1024);
    // The header makes the length known to the other side, and to hyper, which refuses to send
    // fewer or more bytes.
    Ok(request
        .header("content-length", bytes)
        .body(reqwest::Body::wrap_stream(stream)))
}

/// An address of a frontend in the form in which two of them can be compared.
///
/// # Errors
/// [`ClientError::Address`] if it is none.
pub fn normal_address(address: &str) -> Result<String, ClientError> {
    parse_address(address.to_owned()).map(|url| trim_address(&url))
}

fn parse_address(address: String) -> Result<Url, ClientError> {
    let parsed = address.trim().parse::<Url>().map_err(|error| cause(&error));
    let checked = parsed.and_then(check_address);
    checked.map_err(|detail| ClientError::Address { address, detail })
}

fn check_address(url: Url) -> Result<Url, String> {
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("it does not begin with http:// or https://".to_owned());
    }
    // Scripts and logs see the address.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds credentials: a token comes from a file".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has a query or a fragment".to_owned());
    }
    Ok(url)
}

fn trim_address(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// The system's certificates cost megabytes and may be absent on a bare machine, so they are read
/// only where an address needs them; and a proxy is never asked for what is on this machine.
pub(crate) fn connections(addresses: &[Url]) -> Result<reqwest::Client, reqwest::Error> {
    let connect = if addresses.len() > 1 {
        CONNECT
    } else {
        CONNECT_ALONE
    };
    let mut builder = reqwest::Client::builder()
        .connect_timeout(connect)
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE)
        .tcp_keepalive_retries(KEEPALIVE_PROBES)
        .tcp_user_timeout(SILENCE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("distci/", env!("CARGO_PKG_VERSION")));
    if addresses.iter().all(|url| url.scheme() == "http") {
        builder = builder.tls_certs_only([]);
    }
    if addresses.iter().all(is_loopback) {
        builder = builder.no_proxy();
    }
    builder.build()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;

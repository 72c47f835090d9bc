//! The network between clients and frontends: it delays, loses, repeats and cuts.
//!
//! Owns which frontend listens where, and what becomes of each request and answer. Never looks into
//! either, but to note which results their workers were told to be accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use distci_client::Transport;
use distci_frontend::Inner;
use distci_store::coordination::simulator::{Dice, PerMille};
use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::gate::Gate;

/// How often what happens to a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// It is lost before the frontend has it.
    pub(crate) lost_before: PerMille,
    /// Its answer is lost.
    pub(crate) lost_after: PerMille,
    /// The frontend gets it once more, later.
    pub(crate) twice: PerMille,
    /// It is slow, or its answer is.
    pub(crate) slow: PerMille,
}

/// A frontend that listens.
struct Host {
    inner: Inner,
    gate: Gate,
    requests: JoinSet<()>,
}

struct State {
    dice: Dice,
    weather: Weather,
    hosts: BTreeMap<String, Host>,
    /// Between whom nothing passes: a client and the address of a frontend.
    cuts: BTreeSet<(String, String)>,
    late: JoinSet<()>,
    accepted: BTreeSet<String>,
}

/// The network. Clones are the same.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

/// What becomes of one request.
struct Fate {
    there: Duration,
    back: Duration,
    lost_before: bool,
    lost_after: bool,
    /// Of what is lost, nobody is told: else the connection breaks.
    silent: bool,
    again: Option<Duration>,
}

impl Network {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice,
            weather: Weather::default(),
            hosts: BTreeMap::new(),
            cuts: BTreeSet::new(),
            late: JoinSet::new(),
            accepted: BTreeSet::new(),
        })))
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// A frontend begins to listen.
    pub(crate) fn plug(&self, address: &str, inner: Inner, gate: Gate) {
        let requests = JoinSet::new();
        let host = Host {
            inner,
            gate,
            requests,
        };
        self.state().hosts.insert(address.to_owned(), host);
    }

    /// It dies, and with it the requests that it was at.
    pub(crate) fn unplug(&self, address: &str) {
        let host = self.state().hosts.remove(address);
        drop(host);
    }

    /// Nothing passes between a client and a frontend any more.
    pub(crate) fn cut(&self, client: &str, address: &str) {
        let pair = (client.to_owned(), address.to_owned());
        self.state().cuts.insert(pair);
    }

    /// Everything passes again between them.
    pub(crate) fn mend(&self, client: &str, address: &str) {
        let pair = (client.to_owned(), address.to_owned());
        self.state().cuts.remove(&pair);
    }

    /// The way of one client to all frontends.
    pub(crate) fn way(&self, client: &str) -> Arc<dyn Transport> {
        Arc::new(Way {
            network: self.clone(),
            client: client.to_owned(),
        })
    }

    /// The paths of the results whose workers were told that they are accepted.
    pub(crate) fn accepted(&self) -> BTreeSet<String> {
        self.state().accepted.clone()
    }

    fn fate(&self) -> Fate {
        let mut state = self.state();
        let weather = state.weather;
        let dice = &mut state.dice;
        let mut leg = || {
            let slow = dice.roll(weather.slow);
            let micros = 100 + dice.below(if slow { 6_000_000 } else { 2_000 });
            Duration::from_micros(micros as u64)
        };
        let (there, back) = (leg(), leg());
        let (lost_before, lost_after) = (
            dice.roll(weather.lost_before),
            dice.roll(weather.lost_after),
        );
        let silent = dice.chance(50);
        let twice = dice.roll(weather.twice);
        let again = twice.then(|| Duration::from_millis(dice.below(15_000) as u64));
        Fate {
            there,
            back,
            lost_before,
            lost_after,
            silent,
            again,
        }
    }

    fn is_cut(&self, client: &str, address: &str) -> bool {
        let pair = (client.to_owned(), address.to_owned());
        self.state().cuts.contains(&pair)
    }

    /// Hands a request to a frontend, if one listens there. A closed connection ends it.
    fn serve(
        &self,
        address: &str,
        request: Request<Bytes>,
    ) -> Option<oneshot::Receiver<Response<Bytes>>> {
        let mut state = self.state();
        let heeds = state.dice.chance(90);
        let host = state.hosts.get_mut(address)?;
        while host.requests.try_join_next().is_some() {}
        let (inner, gate) = (host.inner.clone(), host.gate.clone());
        let (mut reply, answer) = oneshot::channel();
        host.requests.spawn(async move {
            let work = async {
                tokio::select! {
                    biased;
                    answer = inner.answer(request) => drop(reply.send(answer)),
                    () = reply.closed(), if heeds => {}
                }
            };
            gate.guard(work).await;
        });
        Some(answer)
    }

    /// The frontend gets a request that nobody waits for.
    fn serve_later(&self, address: &str, request: Request<Bytes>, after: Duration) {
        let (network, address) = (self.clone(), address.to_owned());
        let mut state = self.state();
        while state.late.try_join_next().is_some() {}
        state.late.spawn(async move {
            sleep(after).await;
            if let Some(answer) = network.serve(&address, request) {
                drop(answer.await);
            }
        });
    }

    async fn carry(
        self,
        client: String,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, String> {
        let fate = self.fate();
        let address = request.uri().authority().map(ToString::to_string);
        let address = address.unwrap_or_default();
        let path = request.uri().path().to_owned();
        sleep(fate.there).await;
        if self.is_cut(&client, &address) {
            return pending().await;
        }
        if fate.lost_before {
            return broken(fate.silent).await;
        }
        if let Some(after) = fate.again {
            self.serve_later(&address, request.clone(), after);
        }
        let Some(answer) = self.serve(&address, request) else {
            return Err("connection refused".to_owned());
        };
        let Ok(answer) = answer.await else {
            return broken(fate.silent).await;
        };
        sleep(fate.back).await;
        if self.is_cut(&client, &address) {
            return pending().await;
        }
        if fate.lost_after {
            return broken(fate.silent).await;
        }
        if path.ends_with("/complete") && answer.status().is_success() {
            self.state().accepted.insert(path);
        }
        Ok(answer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a loss looks to the client.
async fn broken<T>(silent: bool) -> Result<T, String> {
    if silent {
        return pending().await;
    }
    Err("connection reset".to_owned())
}

struct Way {
    network: Network,
    client: String,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the way of {}", self.client)
    }
}

impl Transport for Way {
    fn carry(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Result<Response<Bytes>, String>> {
        let (network, client) = (self.network.clone(), self.client.clone());
        Box::pin(network.carry(client, request))
    }
}

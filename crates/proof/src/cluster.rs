//! A cluster as a model: frontends that run the store's code, workers, users, and what befalls them.
//!
//! Owns what may happen next. What a transition commits is decided by the store's code, run on the
//! tree that a frontend sees; whether and when that commit happens, and whether anybody hears of it,
//! is chosen here, in every way there is within the budget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use distci_model::capability::Capabilities;
use distci_model::id::{Attempt, TicketKey};
use distci_model::ticket::TicketState;
use stateright::{Model, Property};

use crate::act::{Act, Ending, worker_name};
use crate::engine::{End, Engine, Sight};
use crate::forest::TreeId;
use crate::laws;
use crate::look::Look;
use crate::setup::{Role, Setup};
use crate::state::{Action, Actor, Budget, Doing, Flight, State};

/// The property of which every law is a part.
pub(crate) const LAWS: &str = "no law is broken";

/// A cluster to be explored.
#[derive(Debug, Clone)]
pub struct Cluster {
    setup: Setup,
    first: TreeId,
    engine: Arc<Mutex<Engine>>,
}

impl Cluster {
    /// The cluster of a set-up.
    pub fn new(setup: Setup) -> Self {
        let mut engine = Engine::new(setup.defect);
        let first = setup.plant(&mut engine);
        Self {
            setup,
            first,
            engine: Arc::new(Mutex::new(engine)),
        }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many different trees were met.
    pub fn trees(&self) -> usize {
        self.engine().forest.len()
    }

    /// Whether everybody has what he wanted, and nothing is left to do.
    pub fn is_finished(&self, state: &State) -> bool {
        let mut roles = self.setup.roles.iter().zip(&state.actors);
        let served = roles.all(|(role, actor)| match role {
            Role::User(_) => actor.doing == Doing::Gone,
            Role::Control | Role::Task => true,
        });
        served && laws::all_over(&self.engine().look(state.tree))
    }

    /// An action in words, with the names of tickets for their keys.
    pub fn words(&self, action: &Action) -> String {
        let mut words = format!("{action:?}");
        for (key, name) in &self.setup.names() {
            words = words.replace(key, name);
        }
        words
    }

    /// The acts that are open to an actor.
    fn wishes(&self, engine: &mut Engine, state: &State, who: u8) -> Vec<Act> {
        let actor = &state.actors[usize::from(who)];
        match &actor.doing {
            Doing::Wants(act) => vec![Act::clone(&engine.acts.get(*act))],
            Doing::Idle => {
                let look = engine.look(state.tree);
                let control = matches!(self.setup.roles[usize::from(who)], Role::Control);
                claims(&look, control, (who, actor.requests, state.late))
            }
            Doing::Works(ticket, attempt) => {
                endings(state.left, &engine.tickets.get(*ticket), *attempt)
            }
            Doing::Decides(ticket, attempt, order) => vec![Act::Commit {
                ticket: TicketKey::clone(&engine.tickets.get(*ticket)),
                attempt: *attempt,
                order: *order,
                late: state.late,
            }],
            Doing::Waits(_) | Doing::Gone => Vec::new(),
        }
    }

    /// The acts that frontends do by themselves.
    fn duties(engine: &mut Engine, state: &State) -> Vec<Act> {
        let look = engine.look(state.tree);
        let mut duties = Vec::new();
        for (ticket, anchored) in &look.tickets {
            if let TicketState::Claimed(claimed) = &anchored.ticket.state {
                let attempt = anchored.ticket.attempt;
                let holder = (0..)
                    .zip(&state.actors)
                    .find(|(who, _)| worker_name(*who).is_some_and(|name| name == claimed.worker));
                let well = holder.is_some_and(|(_, actor)| knows(engine, actor, ticket, attempt));
                if !well || state.left.expiries > 0 {
                    let ticket = ticket.clone();
                    duties.push(Act::Expire { ticket, attempt });
                }
            }
        }
        let due = look.due.iter().filter(|_| state.late);
        duties.extend(due.map(|due| Act::Wake {
            ticket: due.key.clone(),
        }));
        duties.retain(|act| {
            let act = engine.acts.keep(act.clone());
            let mut flights = state.flights.iter();
            !flights.any(|flight| flight.act == act)
        });
        duties
    }

    /// Adds the ways in which an act may go: with all as it is, and with something as it was.
    fn ways(
        engine: &mut Engine,
        state: &State,
        (who, act): (Option<u8>, Act),
        actions: &mut Vec<Action>,
    ) {
        let id = engine.acts.keep(act.clone());
        let fresh = engine.run(id, Sight::of(state.tree));
        let mut ends = vec![fresh.end];
        actions.push(Action::Try {
            who,
            act: act.clone(),
            lag: None,
        });
        if state.left.lags == 0 {
            return;
        }
        for old in &state.behind {
            let mut reads = 1;
            loop {
                let new = state.tree;
                let sight = Sight {
                    old: *old,
                    reads,
                    new,
                };
                let ran = engine.run(id, sight);
                if !ends.contains(&ran.end) {
                    ends.push(ran.end);
                    let lag = Some((*old, reads));
                    let act = act.clone();
                    actions.push(Action::Try { who, act, lag });
                }
                if ran.reads <= reads {
                    break;
                }
                reads += 1;
            }
        }
    }

    fn try_act(
        &self,
        state: &State,
        (who, act): (Option<u8>, &Act),
        lag: Option<(TreeId, usize)>,
    ) -> State {
        let mut engine = self.engine();
        let mut next = state.clone();
        let again =
            who.is_some_and(|who| matches!(state.actors[usize::from(who)].doing, Doing::Wants(_)));
        if !again {
            next.left.spend(act);
        }
        let new = state.tree;
        let sight = match lag {
            Some((old, reads)) => {
                next.left.lags -= 1;
                Sight { old, reads, new }
            }
            None => Sight::of(new),
        };
        let id = engine.acts.keep(act.clone());
        if let Act::Expire { ticket, attempt } = act
            && is_known(&mut engine, state, ticket, *attempt)
        {
            next.left.expiries -= 1;
        }
        match engine.run(id, sight).end {
            End::Commits(commit) => {
                if let Some(who) = who {
                    next.actors[usize::from(who)].doing = Doing::Waits(id);
                }
                let act = id;
                next.flights.push(Flight { who, act, commit });
            }
            End::Tells(answer) => next.hear(&mut engine, (who, act), answer),
        }
        next.tidy(&engine);
        next
    }

    fn deliver(&self, state: &State, flight: usize, twice: bool) -> State {
        let mut engine = self.engine();
        let mut next = state.clone();
        let flight = next.flights.remove(flight);
        let after = engine.forest.apply(state.tree, flight.commit);
        if let Some(after) = after {
            let (old, new) = (engine.look(state.tree), engine.look(after));
            next.broken = laws::of_step(&old, &new).or_else(|| engine.broken(after));
            next.behind.insert(0, state.tree);
            next.tree = after;
        }
        if twice {
            next.left.twice -= 1;
            next.flights.push(Flight {
                who: None,
                ..flight.clone()
            });
        }
        if let Some(who) = flight.who {
            let act = Act::clone(&engine.acts.get(flight.act));
            next.actors[usize::from(who)].doing = Doing::Wants(flight.act);
            if after.is_some()
                && let End::Tells(answer) = engine.run(flight.act, Sight::of(next.tree)).end
            {
                next.hear(&mut engine, (Some(who), &act), answer);
            }
        }
        next.behind.truncate(self.setup.lag);
        next.tidy(&engine);
        next
    }

    fn forget(&self, state: &State, flight: usize) -> State {
        let mut next = state.clone();
        next.left.unknown -= 1;
        let flight = &mut next.flights[flight];
        if let Some(who) = flight.who.take() {
            next.actors[usize::from(who)].doing = Doing::Wants(flight.act);
        }
        next.tidy(&self.engine());
        next
    }

    fn crash(&self, state: &State, who: u8) -> State {
        let mut next = state.clone();
        next.left.crashes -= 1;
        let actor = &mut next.actors[usize::from(who)];
        actor.doing = Doing::Idle;
        actor.requests += 1;
        for flight in &mut next.flights {
            if flight.who == Some(who) {
                flight.who = None;
            }
        }
        next.tidy(&self.engine());
        next
    }
}

/// The claims that an idle worker may ask for.
fn claims(look: &Look, control: bool, (worker, request, late): (u8, u8, bool)) -> Vec<Act> {
    let class = Capabilities::control().class();
    let fits = look
        .queue
        .iter()
        .filter(|entry| (entry.class == class) == control);
    fits.map(|entry| Act::Claim {
        ticket: entry.key.clone(),
        worker,
        request,
        late,
    })
    .collect()
}

/// What a worker may do with a task.
fn endings(left: Budget, ticket: &TicketKey, attempt: Attempt) -> Vec<Act> {
    let mut acts = Vec::new();
    let endings = [
        (Ending::Success, 1),
        (Ending::Failure, left.failures),
        (Ending::Fault, left.faults),
    ];
    for (ending, left) in endings {
        if left > 0 {
            acts.push(Act::Complete {
                ticket: ticket.clone(),
                attempt,
                ended: attempt,
                ending,
            });
        }
    }
    if left.releases > 0 {
        let ticket = ticket.clone();
        acts.push(Act::Release { ticket, attempt });
    }
    acts
}

/// Whether an actor knows of a claim, and so keeps it alive.
fn knows(engine: &Engine, actor: &Actor, ticket: &TicketKey, attempt: Attempt) -> bool {
    match &actor.doing {
        Doing::Works(known, of) | Doing::Decides(known, of, _) => {
            *of == attempt && *engine.tickets.get(*known) == *ticket
        }
        Doing::Wants(act) | Doing::Waits(act) => match &*engine.acts.get(*act) {
            Act::Claim { ticket: known, .. } => known == ticket,
            Act::Complete {
                ticket: known,
                attempt: of,
                ..
            }
            | Act::Release {
                ticket: known,
                attempt: of,
            }
            | Act::Commit {
                ticket: known,
                attempt: of,
                ..
            } => known == ticket && *of == attempt,
            _ => false,
        },
        Doing::Idle | Doing::Gone => false,
    }
}

fn is_known(engine: &mut Engine, state: &State, ticket: &TicketKey, attempt: Attempt) -> bool {
    let look = engine.look(state.tree);
    let Some(anchored) = look.tickets.get(ticket) else {
        return false;
    };
    let TicketState::Claimed(claimed) = &anchored.ticket.state else {
        return false;
    };
    let mut actors = (0..).zip(&state.actors);
    actors.any(|(who, actor)| {
        worker_name(who).is_some_and(|name| name == claimed.worker)
            && knows(engine, actor, ticket, attempt)
    })
}

/// That of a trouble there is none, or that it comes to its last: a budget that is never spent proves
/// nothing.
macro_rules! spent {
    ($name:literal, $kind:ident) => {
        Property::sometimes($name, |model: &Cluster, state: &State| {
            model.setup.budget.$kind == 0 || state.left.$kind == 0
        })
    };
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut engine = self.engine();
        let actor = |role: &Role| Actor {
            doing: match role {
                Role::User(act) => Doing::Wants(engine.acts.keep(act.clone())),
                Role::Control | Role::Task => Doing::Idle,
            },
            requests: 0,
        };
        vec![State {
            tree: self.first,
            behind: Vec::new(),
            actors: self.setup.roles.iter().map(actor).collect(),
            flights: Vec::new(),
            left: self.setup.budget,
            late: false,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        let mut engine = self.engine();
        let count = u8::try_from(state.actors.len()).unwrap_or(u8::MAX);
        for who in 0..count {
            for act in self.wishes(&mut engine, state, who) {
                Self::ways(&mut engine, state, (Some(who), act), actions);
            }
            let works = !matches!(self.setup.roles[usize::from(who)], Role::User(_));
            if works
                && state.left.crashes > 0
                && state.actors[usize::from(who)].doing != Doing::Idle
            {
                actions.push(Action::Crash { who });
            }
        }
        if !state.late && !engine.look(state.tree).due.is_empty() {
            actions.push(Action::Wait);
        }
        for act in Self::duties(&mut engine, state) {
            Self::ways(&mut engine, state, (None, act), actions);
        }
        for (flight, it) in state.flights.iter().enumerate() {
            let happens = engine.forest.apply(state.tree, it.commit).is_some();
            if happens || it.who.is_some() {
                let twice = false;
                actions.push(Action::Deliver { flight, twice });
            }
            if happens && state.left.twice > 0 {
                let twice = true;
                actions.push(Action::Deliver { flight, twice });
            }
            if it.who.is_some() && state.left.unknown > 0 {
                actions.push(Action::Forget { flight });
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = match action {
            Action::Try { who, act, lag } => self.try_act(state, (who, &act), lag),
            Action::Deliver { flight, twice } => self.deliver(state, flight, twice),
            Action::Forget { flight } => self.forget(state, flight),
            Action::Crash { who } => self.crash(state, who),
            Action::Wait => State {
                late: true,
                ..state.clone()
            },
        };
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LAWS, |_: &Self, state: &State| state.broken.is_none()),
            Property::sometimes("everything is done", |model: &Self, state: &State| {
                model.is_finished(state)
            }),
            spent!("an outcome is unknown", unknown),
            spent!("a commit arrives twice", twice),
            spent!("a worker dies", crashes),
            spent!("a healthy claim is given up", expiries),
            spent!("a claim is handed back", releases),
            spent!("a task fails", failures),
            spent!("a task ends in a fault", faults),
            spent!("a frontend lags", lags),
        ]
    }
}

//! A claim that one frontend hears of and another may give up: beats, digests, the barrier.
//!
//! Owns a model of time in turns, of the nodes in which the frontend that hears names the claim, and
//! of the one that watches and may lag behind for as long as it likes. When a claim has lapsed, and
//! for how long what was named can be read, is production's law, `model::lease`. Law: what was named
//! within a lease before the watcher began to ask is not given up (I12).

use std::time::Duration;

use distci_model::lease::{DIGEST, FRESH, TURNS, has_lapsed};
use distci_model::ticket::Duty;
use stateright::{Model, Property};

/// The rules by which a claim is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// After how many turns what was named is written over.
    pub turns: u32,
    /// Whether the watcher learns all that was named before it gives a claim up.
    pub barrier: bool,
    /// Whether that has to be done within its time.
    pub in_time: bool,
    /// Whether a watcher that was asleep meanwhile begins anew.
    pub awake: bool,
}

impl Rules {
    /// Those of production.
    #[expect(clippy::cast_possible_truncation, reason = "there are few turns")]
    pub const PRODUCTION: Self = Self {
        turns: TURNS as u32,
        barrier: true,
        in_time: true,
        awake: true,
    };
}

/// The watch over one claim.
#[derive(Debug, Clone)]
pub struct Watching {
    /// The rules.
    pub rules: Rules,
    /// How many others come before the watcher.
    pub rank: u32,
}

/// The watcher asks for everything that was named before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asked {
    /// How many turns ago.
    turns: u32,
    /// What it had still to read then.
    unread: u32,
    /// Whether the claim had been named within its lease then.
    fresh: bool,
}

/// What the two frontends know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watched {
    /// Whether the claim was heard of since the last digest.
    heard: bool,
    /// Which of the latest turns' nodes name the claim; the lowest bit is the latest.
    names: u32,
    /// Which of them the watcher has not read.
    unread: u32,
    /// How many turns ago the claim was named last.
    named: u32,
    /// How many turns ago the watcher was told last, by its own clock.
    silent: u32,
    /// What it is waiting for before it gives the claim up.
    asked: Option<Asked>,
    /// Whether it has given the claim up,
    pub given_up: bool,
    /// and that was wrong.
    pub wrongly: bool,
}

/// What may happen to a claim and its watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// The worker's beat is heard.
    Beat,
    /// A turn passes.
    Turn {
        /// Whether the digest was written.
        written: bool,
        /// Whether the watcher is asleep all the time.
        asleep: bool,
    },
    /// The watcher reads the oldest digest that it has not read.
    Read,
    /// The watcher loses the store, and learns anew which claims there are.
    Gap,
    /// The watcher finds that the claim has lapsed, and asks for all that was named before.
    Ask,
    /// The watcher gives up asking, for it took too long or it was asleep.
    Abandon,
    /// The watcher has learnt all that was named, and decides.
    Decide,
}

/// A time in turns.
#[expect(clippy::cast_possible_truncation, reason = "a lease has few turns")]
const fn turns(time: Duration) -> u32 {
    time.as_secs().div_ceil(DIGEST.as_secs()) as u32
}

impl Watching {
    /// From here on one turn more makes no difference.
    fn most(&self) -> u32 {
        turns(Duty::Task.lease()) + self.rank + 2
    }

    fn lapsed(&self, silent: u32) -> bool {
        has_lapsed(Duty::Task.lease(), DIGEST * silent, self.rank)
    }

    fn mask(&self) -> u32 {
        (1 << self.rules.turns) - 1
    }

    /// The nodes a turn later: the one that was written longest ago is the next.
    fn turned(&self, nodes: u32) -> u32 {
        let last = nodes >> (self.rules.turns - 1);
        ((nodes << 1) & self.mask()) | last
    }

    fn turn(&self, state: &Watched, written: bool, asleep: bool) -> Watched {
        let most = self.most();
        let later = |turns: u32| (turns + 1).min(most);
        let mut next = Watched {
            names: self.turned(state.names),
            unread: self.turned(state.unread),
            named: later(state.named),
            silent: if asleep { state.silent } else { later(state.silent) },
            ..state.clone()
        };
        if let Some(asked) = &mut next.asked {
            asked.turns = later(asked.turns);
            asked.unread = self.turned(asked.unread);
        }
        if written {
            next.names = next.names & !1 | u32::from(state.heard);
            next.unread |= 1;
            if state.heard {
                next.named = 0;
            }
            next.heard = false;
        }
        if asleep && self.rules.awake {
            next.asked = None;
        }
        next
    }

    fn read(state: &Watched) -> Option<Watched> {
        let oldest = 1_u32.checked_shl(state.unread.checked_ilog2()?)?;
        let mut next = state.clone();
        next.unread &= !oldest;
        if let Some(asked) = &mut next.asked {
            asked.unread &= !oldest;
        }
        if state.names & oldest != 0 {
            // As production has it: whom it was told of is no more asked for.
            next.silent = 0;
            next.asked = None;
        }
        Some(next)
    }

    fn ask(&self, state: &Watched) -> Watched {
        let unread = if self.rules.barrier { state.unread } else { 0 };
        Watched {
            asked: Some(Asked {
                turns: 0,
                unread,
                fresh: state.named < turns(Duty::Task.lease()),
            }),
            ..state.clone()
        }
    }

    /// Whether the watcher may decide: it has learnt what it asked for, in time.
    fn may_decide(&self, asked: Asked) -> bool {
        asked.unread == 0 && (!self.rules.in_time || self.is_in_time(asked))
    }

    fn is_in_time(&self, asked: Asked) -> bool {
        asked.turns <= turns(FRESH)
    }
}

impl Model for Watching {
    type State = Watched;
    type Action = Happening;

    fn init_states(&self) -> Vec<Watched> {
        vec![Watched {
            heard: false,
            names: 0,
            unread: 0,
            named: self.most(),
            silent: 0,
            asked: None,
            given_up: false,
            wrongly: false,
        }]
    }

    fn actions(&self, state: &Watched, actions: &mut Vec<Happening>) {
        if state.given_up {
            return;
        }
        if !state.heard {
            actions.push(Happening::Beat);
        }
        for written in [true, false] {
            for asleep in [false, true] {
                actions.push(Happening::Turn { written, asleep });
            }
        }
        actions.extend((state.unread != 0).then_some(Happening::Read));
        actions.push(Happening::Gap);
        match state.asked {
            None => actions.extend(self.lapsed(state.silent).then_some(Happening::Ask)),
            Some(asked) => {
                actions.extend(self.may_decide(asked).then_some(Happening::Decide));
                actions.extend((!self.is_in_time(asked)).then_some(Happening::Abandon));
            }
        }
    }

    fn next_state(&self, state: &Watched, happening: Happening) -> Option<Watched> {
        Some(match happening {
            Happening::Beat => Watched {
                heard: true,
                ..state.clone()
            },
            Happening::Turn { written, asleep } => self.turn(state, written, asleep),
            Happening::Read => Self::read(state)?,
            Happening::Gap => Watched {
                unread: 0,
                silent: 0,
                asked: None,
                ..state.clone()
            },
            Happening::Ask => self.ask(state),
            Happening::Abandon => Watched {
                asked: None,
                ..state.clone()
            },
            Happening::Decide => Watched {
                given_up: true,
                wrongly: state.asked?.fresh,
                ..state.clone()
            },
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(crate::laws::HEALTHY, |_: &Self, state: &Watched| {
                !state.wrongly
            }),
            Property::sometimes("a claim is given up", |_: &Self, state: &Watched| {
                state.given_up
            }),
        ]
    }
}

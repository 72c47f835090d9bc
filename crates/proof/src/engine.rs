//! Runs the store's own code on trees that it is shown.
//!
//! Owns the memory of what each run came to, for the same act on the same trees comes to the same.

use std::collections::HashMap;
use std::sync::Arc;

use distci_model::id::{Attempt, TicketKey};
use distci_model::wire::ControlOrder;
use distci_store::Store;
use distci_store::blobs::Blobs;
use distci_store::coordination::Op;
use distci_store::coordination::tree::Tree;
use futures::FutureExt;

use crate::act::{Act, OrderId, Told, perform};
use crate::defect::Defect;
use crate::forest::{CommitId, Forest, TreeId};
use crate::laws;
use crate::look::Look;
use crate::pool::Pool;
use crate::script::{Script, Scripted};

/// What a frontend that may lag behind sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sight {
    pub(crate) old: TreeId,
    pub(crate) reads: usize,
    pub(crate) new: TreeId,
}

impl Sight {
    /// All as it is.
    pub(crate) fn of(tree: TreeId) -> Self {
        Self {
            old: tree,
            reads: 0,
            new: tree,
        }
    }
}

/// What the asker is told, in small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Claimed(Attempt, Option<OrderId>),
    Taken,
    Done,
    Lost,
    Again(OrderId),
    Refused,
    Broken,
}

/// Where an act ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// It waits for the outcome of this.
    Commits(CommitId),
    /// It is answered.
    Tells(Answer),
}

/// What a run came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ran {
    pub(crate) reads: usize,
    pub(crate) end: End,
}

/// The orders of build control met so far.
#[derive(Debug, Default)]
struct Orders {
    numbers: HashMap<String, OrderId>,
    orders: Vec<Arc<ControlOrder>>,
}

impl Orders {
    fn keep(&mut self, order: ControlOrder) -> OrderId {
        let text = serde_json::to_string(&order).unwrap_or_default();
        let next = OrderId(u32::try_from(self.orders.len()).unwrap_or(u32::MAX));
        *self.numbers.entry(text).or_insert_with(|| {
            self.orders.push(Arc::new(order));
            next
        })
    }
}

/// The store's code, and all that it was shown and did.
#[derive(Debug)]
pub(crate) struct Engine {
    script: Arc<Scripted>,
    store: Store,
    pub(crate) forest: Forest,
    pub(crate) acts: Pool<Act>,
    pub(crate) tickets: Pool<TicketKey>,
    orders: Orders,
    ran: HashMap<(u32, Sight), Ran>,
    looks: HashMap<TreeId, (Arc<Look>, Option<&'static str>)>,
    defect: Option<Defect>,
}

impl Engine {
    /// Nothing run yet.
    pub(crate) fn new(defect: Option<Defect>) -> Self {
        let script = Arc::new(Scripted::default());
        Self {
            store: Store::new(script.clone(), Blobs::memory()),
            script,
            forest: Forest::default(),
            acts: Pool::default(),
            tickets: Pool::default(),
            orders: Orders::default(),
            ran: HashMap::new(),
            looks: HashMap::new(),
            defect,
        }
    }

    /// Runs something of the store to its end, each of its commits happening at once.
    pub(crate) fn prepare<T>(&mut self, tree: &mut Tree, run: &impl AsyncFn(&Store) -> T) -> T {
        loop {
            self.script.begin(Script {
                old: Arc::default(),
                reads: 0,
                new: Arc::new(tree.clone()),
            });
            if let Some(done) = run(&self.store).now_or_never() {
                return done;
            }
            let id = self.forest.plant(tree);
            let commit = self.forest.note(&self.script.end().ops.unwrap_or_default());
            if let Some(after) = self.forest.apply(id, commit) {
                *tree = self.forest.tree(after);
            }
        }
    }

    /// Runs an act until its first commit, or to its answer.
    pub(crate) fn run(&mut self, act: u32, sight: Sight) -> Ran {
        if let Some(ran) = self.ran.get(&(act, sight)) {
            return *ran;
        }
        let ran = self.run_anew(act, sight);
        self.ran.insert((act, sight), ran);
        ran
    }

    fn run_anew(&mut self, act: u32, sight: Sight) -> Ran {
        let (old, new) = (self.forest.tree(sight.old), self.forest.tree(sight.new));
        let script = Script {
            old: Arc::new(old),
            reads: sight.reads,
            new: Arc::new(new),
        };
        self.script.begin(script.clone());
        let act = self.spoilt(&self.acts.get(act), sight.new);
        let order = match &act {
            Act::Commit { order, .. } => self.orders.orders.get(order.0 as usize).cloned(),
            _ => None,
        };
        let told = perform(&self.store, &act, order.as_deref()).now_or_never();
        let played = self.script.end();
        let end = match (told, played.ops) {
            (Some(told), _) => End::Tells(self.answer(told)),
            (None, Some(ops)) => End::Commits(self.caught(&act, ops, &script.new)),
            (None, None) => End::Tells(Answer::Broken),
        };
        Ran {
            reads: played.reads,
            end,
        }
    }

    fn caught(&mut self, act: &Act, ops: Vec<Op>, tree: &Tree) -> CommitId {
        let ops = match self.defect {
            Some(defect) => defect.spoil(act, ops, tree),
            None => ops,
        };
        self.forest.note(&ops)
    }

    /// The act as it is with the planted defect.
    fn spoilt(&mut self, act: &Act, tree: TreeId) -> Act {
        let mut act = act.clone();
        if self.defect == Some(Defect::Unfenced)
            && let Act::Complete {
                ticket, attempt, ..
            } = &mut act
            && let Some(now) = self.look(tree).tickets.get(ticket)
        {
            *attempt = now.ticket.attempt;
        }
        act
    }

    fn answer(&mut self, told: Told) -> Answer {
        match told {
            Told::Claimed(attempt, order) => {
                Answer::Claimed(attempt, order.map(|order| self.orders.keep(*order)))
            }
            Told::Taken => Answer::Taken,
            Told::Done => Answer::Done,
            Told::Lost => Answer::Lost,
            Told::Again(order) => Answer::Again(self.orders.keep(*order)),
            Told::Refused => Answer::Refused,
            Told::Broken => Answer::Broken,
        }
    }

    /// What a tree says.
    pub(crate) fn look(&mut self, tree: TreeId) -> Arc<Look> {
        Arc::clone(&self.judged(tree).0)
    }

    /// The law that a tree breaks, if it breaks one.
    pub(crate) fn broken(&mut self, tree: TreeId) -> Option<&'static str> {
        self.judged(tree).1
    }

    fn judged(&mut self, tree: TreeId) -> &(Arc<Look>, Option<&'static str>) {
        let forest = &self.forest;
        self.looks.entry(tree).or_insert_with(|| {
            let look = Look::at(&forest.tree(tree));
            let broken = laws::of_tree(&look);
            (Arc::new(look), broken)
        })
    }
}

//! A backend that goes wrong on purpose, the same way for the same seed.
//!
//! [`Faults`] is one world of them. Each process of that world has a [`Link`] of its own to the
//! backend behind it, whose requests are late, refused, done without an answer, done twice, or cut
//! off for a while. Time is tokio's, and a test pauses it.
//!
//! What it does wrong is what a server behind a network may do. A [`Broken`] promise is more than
//! that: with it a test proves that it would notice.

mod broker;
mod journal;
mod link;
mod receipt;
mod stores;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::Backend;
use tokio::time::Instant;

pub use self::journal::{Fact, Journal, Line, Request};
pub use self::link::{Fault, Link};

/// A world of faults. Cheap to clone.
#[derive(Clone)]
pub struct Faults(Arc<World>);

struct World {
    random: Mutex<fastrand::Rng>,
    odds: Odds,
    on: AtomicBool,
    links: AtomicUsize,
    journal: Journal,
    broken: Option<Broken>,
}

/// Number of requests that go wrong, of a thousand, for each kind of fault.
#[derive(Clone, Copy, Default)]
struct Odds {
    refused: u32,
    lost: u32,
    late: u32,
    twice: u32,
    slow: u32,
    outage: u32,
    listener: u32,
    /// An ack by a worker that lost the message to another one removes it, as in NATS.
    weak_receipts: bool,
}

/// A promise that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Some kicks are confirmed and forgotten.
    Kicks,
    /// Conditional writes of records are unconditional.
    Expectations,
    /// Some records are confirmed and forgotten.
    Records,
    /// A record that is removed leaves its place to every write that is on its way, and no message
    /// is too old for one.
    Removals,
    /// The mark of a kick that doubts a job is confirmed and forgotten.
    Marks,
    /// The same, and what the kick asks after it is answered as before it.
    Takeovers,
    /// Conditional writes of keys are unconditional.
    Entries,
    /// Who reads the entry of a schedule is told, now and then, that there is none.
    Fences,
    /// The end of a job frees its key, also if another job holds it.
    Freeing,
}

impl Faults {
    /// The world of that seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, None)
    }

    /// The same, with a promise broken.
    #[must_use]
    pub fn broken(seed: u64, broken: Broken) -> Self {
        Self::with(seed, Some(broken))
    }

    /// A layer without random faults: only planned ones happen.
    #[must_use]
    pub fn planned() -> Self {
        Self::of(fastrand::Rng::with_seed(0), Odds::default(), None)
    }

    fn with(seed: u64, broken: Option<Broken>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let odds = Odds::draw(&mut random);
        Self::of(random, odds, broken)
    }

    fn of(random: fastrand::Rng, odds: Odds, broken: Option<Broken>) -> Self {
        Self(Arc::new(World {
            random: Mutex::new(random),
            odds,
            on: AtomicBool::new(true),
            links: AtomicUsize::new(0),
            journal: Journal::new(Instant::now()),
            broken,
        }))
    }

    /// A new link to that backend, for one process.
    #[must_use]
    pub fn link(&self, to: &Backend) -> Link {
        Link::new(self.clone(), self.0.links.fetch_add(1, Ordering::Relaxed), to)
    }

    /// Nothing goes wrong any more.
    pub fn end(&self) {
        self.0.on.store(false, Ordering::Relaxed);
        self.journal().note(0, Fact::Note("the faults end".to_owned()));
    }

    /// The journal of the world.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    fn are_on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    fn odds(&self) -> Odds {
        self.0.odds
    }

    fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.0.random.lock().expect("nothing panics while it is locked"))
    }

    /// Draws an event that happens `of_a_thousand` times in a thousand.
    fn happens(&self, of_a_thousand: u32) -> bool {
        self.are_on() && self.random(|random| random.u32(..1_000)) < of_a_thousand
    }

    /// True if this promise is broken in this world.
    fn breaks(&self, promise: Broken) -> bool {
        let often = match promise {
            Broken::Kicks | Broken::Records => 100,
            Broken::Fences => 300,
            _ => 1_000,
        };
        self.0.broken == Some(promise) && self.happens(often)
    }

    /// Draws the duration of a request: mostly none, sometimes seconds.
    fn span(&self) -> Duration {
        let slow = self.odds().slow;
        self.random(|random| match random.u32(..1_000) {
            draw if draw < slow => Duration::from_millis(random.u64(100..4_000)),
            draw if draw < 500 => Duration::from_millis(random.u64(1..20)),
            _ => Duration::ZERO,
        })
    }
}

impl Odds {
    fn draw(random: &mut fastrand::Rng) -> Self {
        // Some worlds are calm in some respects, so that the others get further.
        let mut most = |most: u32| if random.bool() { random.u32(..most) } else { 0 };
        Self {
            refused: most(60),
            lost: most(60),
            late: most(60),
            twice: most(60),
            slow: most(60),
            outage: most(12),
            listener: most(60),
            weak_receipts: most(2) == 1,
        }
    }
}

//! Guarantees of a [`Broker`](crate::broker::Broker) and its listeners.

mod delay;
mod examine;
mod inspect;
mod kick;
mod lease;
mod list;
mod listen;
mod names;
mod order;
mod remove;
mod replace;
mod watch;

pub use self::delay::*;
pub use self::examine::*;
pub use self::inspect::*;
pub use self::kick::*;
pub use self::lease::*;
pub use self::list::*;
pub use self::listen::*;
pub use self::names::*;
pub use self::order::*;
pub use self::remove::*;
pub use self::replace::*;
pub use self::watch::*;

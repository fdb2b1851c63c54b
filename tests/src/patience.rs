//! The time limit of everything that a test waits for: [`PATIENCE`].

use std::time::Duration;

use tokio::time::timeout;

/// Time limit of a single wait. Nothing takes so long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The output of a future that is ready in no time.
///
/// # Panics
/// It is not ready within [`PATIENCE`].
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("this takes no time")
}

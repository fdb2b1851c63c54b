//! Every form of parameter, async and blocking.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs)]

use std::path::Path;
use std::sync::Arc;

use aioq::{Context, task};
use serde::{Deserialize, Serialize};

/// An argument of its own type.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Template(String);

/// Some state.
pub struct Mailer;

/// Sends.
#[task]
pub async fn everything(
    to: &str,
    body: &[u8],
    raw: Vec<u8>,
    lent_raw: &Vec<u8>,
    path: &Path,
    numbers: &[i64],
    template: Template,
    lent: &Template,
    #[default] cc: Option<String>,
    #[default("nobody")] from: &str,
    #[default(b"x")] tail: &[u8],
    #[default(vec![1])] head: Vec<u8>,
    #[default(1 + 1)] mut count: u8,
    #[inject] mailer: &Mailer,
    #[inject] shared: &Arc<dyn Send + Sync>,
    #[inject] lent_context: &Context,
    #[inject] context: Context,
) -> usize {
    tokio::task::yield_now().await;
    count += 1;
    let _ = (mailer, shared, lent_context, context, template.0, &lent.0, cc, path, head);
    to.len() + body.len() + raw.len() + lent_raw.len() + numbers.len() + from.len() + tail.len() + count as usize
}

/// Blocks.
#[task]
pub fn blocking(
    to: &str,
    body: &[u8],
    numbers: &[i64],
    #[default] cc: Option<String>,
    #[inject] mailer: &Mailer,
    #[inject] lent_context: &Context,
    #[inject] context: Context,
) -> usize {
    let _ = (mailer, lent_context, context, cc);
    to.len() + body.len() + numbers.len()
}

fn main() {
    let template = Template::default();
    let _ = everything(
        "ada",
        *b"abc",
        vec![1],
        vec![2],
        "/tmp",
        vec![3],
        template.clone(),
        template,
        None,
        String::new(),
        vec![],
        vec![],
        3,
    );
    let _ = blocking("ada", vec![1], vec![2], None);
    assert_eq!(everything::NAME, "everything");
}

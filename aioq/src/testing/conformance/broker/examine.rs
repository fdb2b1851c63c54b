//! Findings of a broker.

use crate::backend::Backend;
use crate::testing::conformance::kit::{envelope, kick, ok};

/// Every broker has findings, in sentences, and examining it changes nothing.
pub async fn an_examination_tells_and_changes_nothing(backend: &Backend) {
    kick(backend, envelope("q", "1")).await;
    let findings = ok(backend.broker().examine().await, "examine");
    assert!(!findings.is_empty(), "an examination finds something");
    for finding in &findings {
        let key = finding.about.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(key && !finding.about.is_empty(), "`{}` is a key of a-z and `_`", finding.about);
        let texts = [Some(&finding.text), finding.advice.as_ref()];
        assert!(texts.into_iter().flatten().all(|text| text.ends_with('.')), "{finding:?} is in sentences");
    }
    let found = ok(backend.broker().find(&"1".into()).await, "find");
    assert!(found.is_some(), "an examination lost a message");
}

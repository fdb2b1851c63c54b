//! The unique key of a call, from its task and the values of its arguments.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::codec::{Arguments, Value};
use crate::message::UniqueKey;

/// Kinds of keys, so that a text never equals the arguments of a call.
const OF_ARGUMENTS: u8 = 1;
const OF_TEXT: u8 = 2;

/// The key of a call by the values of these parameters; of all parameters if `by` is empty.
///
/// Values are compared as they are on the wire, so Rust, Python and a kick by name agree: the order
/// of a map does not count, and a whole float equals the integer. A parameter that the call leaves
/// out counts as absent, not as its default.
pub(crate) fn of_arguments(task: &str, arguments: &Arguments, by: &[&str]) -> UniqueKey {
    let Value::Map(entries) = arguments.named_value() else { return finish(start(task, OF_ARGUMENTS)) };
    let mut values: BTreeMap<String, Value> = BTreeMap::new();
    for (name, value) in entries {
        if let Value::Str(name) = name
            && (by.is_empty() || by.contains(&&*name))
        {
            values.insert(name, value);
        }
    }
    let mut hash = start(task, OF_ARGUMENTS);
    for (name, value) in values {
        part(&mut hash, name.as_bytes());
        let mut bytes = Vec::new();
        canonical(value, &mut bytes);
        part(&mut hash, &bytes);
    }
    if arguments.has_positional() && by.is_empty() {
        let mut bytes = Vec::new();
        canonical(arguments.positional_value(), &mut bytes);
        part(&mut hash, &bytes);
    }
    finish(hash)
}

/// The key that a kick chose as text.
pub(crate) fn of_text(task: &str, text: &str) -> UniqueKey {
    let mut hash = start(task, OF_TEXT);
    part(&mut hash, text.as_bytes());
    finish(hash)
}

fn start(task: &str, kind: u8) -> Sha256 {
    let mut hash = Sha256::new();
    part(&mut hash, task.as_bytes());
    hash.update([kind]);
    hash
}

/// Adds a part with its length before it, so that no two lists of parts have the same bytes.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn finish(hash: Sha256) -> UniqueKey {
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    UniqueKey::of_bytes(bytes)
}

/// Appends the one form of a value: a tag, and the content with its length.
fn canonical(value: Value, out: &mut Vec<u8>) {
    let mut tagged = |tag: u8, content: &[u8]| {
        out.push(tag);
        out.extend_from_slice(&(content.len() as u64).to_be_bytes());
        out.extend_from_slice(content);
    };
    match value {
        Value::Null => tagged(0, &[]),
        Value::Bool(value) => tagged(1, &[value.into()]),
        Value::Int(number) => tagged(2, &i128::from(number).to_be_bytes()),
        Value::Uint(number) => tagged(2, &i128::from(number).to_be_bytes()),
        Value::Float(number) => match whole(number) {
            Some(number) => tagged(2, &number.to_be_bytes()),
            // All values that are not a number are one.
            None if number.is_nan() => tagged(3, &f64::NAN.to_bits().to_be_bytes()),
            None => tagged(3, &number.to_bits().to_be_bytes()),
        },
        Value::Str(text) => tagged(4, text.as_bytes()),
        Value::Bytes(bytes) => tagged(5, &bytes),
        Value::Seq(values) => {
            let mut content = Vec::new();
            values.into_iter().for_each(|value| canonical(value, &mut content));
            tagged(6, &content);
        }
        Value::Map(entries) => {
            // The last of equal keys counts, as in Python.
            let mut sorted = BTreeMap::new();
            for (key, value) in entries {
                let (mut name, mut content) = (Vec::new(), Vec::new());
                canonical(key, &mut name);
                canonical(value, &mut content);
                sorted.insert(name, content);
            }
            let content: Vec<u8> =
                sorted.into_iter().flat_map(|(name, value)| [name, value].concat()).collect();
            tagged(7, &content);
        }
    }
}

/// The integer that a float equals. All integers beyond 2^127 are left as floats.
fn whole(number: f64) -> Option<i128> {
    let is_whole = number.fract() == 0.0 && number.abs() < 2f64.powi(126);
    is_whole.then_some(number as i128)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec::Codec;

    fn key(task: &str, json: &str, by: &[&str]) -> UniqueKey {
        of_arguments(task, &Arguments::from_json(Codec::MessagePack, json).unwrap(), by)
    }

    #[test]
    fn a_key_depends_on_the_task_and_on_the_chosen_values() {
        let one = key("t", r#"{"a": 1, "b": "x"}"#, &["a"]);
        assert_eq!(one, key("t", r#"{"b": "y", "a": 1.0}"#, &["a"]));
        assert_ne!(one, key("t", r#"{"a": 2, "b": "x"}"#, &["a"]));
        assert_ne!(one, key("u", r#"{"a": 1, "b": "x"}"#, &["a"]));
        assert_ne!(key("t", r#"{"a": 1, "b": "x"}"#, &[]), key("t", r#"{"a": 1, "b": "y"}"#, &[]));
        assert_ne!(of_text("t", "1"), key("t", r#"{"a": "1"}"#, &["a"]));
    }

    #[test]
    fn equal_values_in_another_order_or_codec_have_one_key() {
        let text = r#"{"m": {"x": [1, 2.5, null], "y": true}}"#;
        let other = r#"{"m": {"y": true, "x": [1.0, 2.5, null]}}"#;
        assert_eq!(key("t", text, &[]), key("t", other, &[]));
        let json = Arguments::from_json(Codec::Json, other).unwrap();
        assert_eq!(key("t", text, &[]), of_arguments("t", &json, &[]));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(key("t", r#"{"a": "x", "b": "yz"}"#, &[]), key("t", r#"{"a": "xy", "b": "z"}"#, &[]));
        assert_ne!(key("t", r#"{"a": ["x", "y"]}"#, &[]), key("t", r#"{"a": ["xy"]}"#, &[]));
        assert_ne!(key("t", r#"{"a": 1}"#, &["a", "b"]), key("t", r#"{"a": 1, "b": null}"#, &["a", "b"]));
    }
}

//! JSON, by serde_json.

use serde::{Deserialize, Serialize};

use super::{MAX_DEPTH, decode_error, too_deep};
use crate::error::Result;

/// Writes a part that always has a JSON form.
pub(super) fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, part: &T) {
    serde_json::to_writer(out, part).expect("numbers, text and bytes have a JSON form");
}

pub(crate) fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| decode_error(error.to_string()))
}

pub(crate) fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// Refuses values that are nested too deeply. `around` is the number of levels around the value.
pub(super) fn check_depth(bytes: &[u8], around: usize) -> Result<()> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH + around {
                    return Err(too_deep());
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

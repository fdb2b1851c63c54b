//! Attributes of the function stay where they make sense.
#![deny(warnings)]
#![allow(unexpected_cfgs)]

use aioq::task;

#[task]
#[cfg(no_such_cfg)]
async fn gone(x: NoSuchType) {}

#[task]
#[deprecated(note = "use another")]
async fn old() {}

#[task]
#[expect(unused_variables)]
async fn crowded(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) {}

/// Adds.
#[task]
#[must_use]
#[inline]
fn add(a: u8, b: u8) -> u8 {
    #![allow(clippy::let_and_return)]
    let sum = a + b;
    sum
}

fn main() {
    let _ = crowded(1, 2, 3, 4, 5, 6, 7, 8);
    assert_eq!(add::call(1, 2), 3);
}

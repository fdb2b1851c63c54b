//! Flows whose types do not fit.

use aioq::flow::join;
use aioq::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Page;

#[derive(Serialize, Deserialize)]
struct Doc;

#[task]
async fn fetch(_url: &str) -> Page {
    Page
}

#[task]
async fn parse(_page: Page) -> Doc {
    Doc
}

#[task]
async fn title(_doc: Doc) -> String {
    String::new()
}

#[task]
async fn scaled(_page: Page, _depth: u32) {}

#[task]
async fn render(_page: Page, _doc: Doc) {}

fn the_next_takes_something_else() {
    let _ = fetch("a").then(title);
}

fn the_next_takes_more() {
    let _ = fetch("a").then(scaled);
}

fn the_first_argument_is_something_else() {
    let _ = fetch("a").then(parse).then(scaled::with(3_u32));
}

fn the_next_is_given_as_a_call() {
    let _ = fetch("a").then(parse(Page));
}

fn the_next_takes_the_value_and_not_the_end() {
    let _ = fetch("a").then_settled(parse);
}

fn a_join_is_taken_in_another_order() {
    let _ = join((fetch("a").then(parse), fetch("b"))).then(render);
}

fn a_list_is_taken_one_by_one() {
    let _ = join([fetch("a"), fetch("b")]).then(render);
}

fn one_call_is_no_join() {
    let _ = join(fetch("a"));
}

async fn a_flow_is_awaited() {
    fetch("a").then(parse).await;
}

fn main() {}

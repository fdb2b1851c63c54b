use aioq::task;

#[task]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

async fn runs() {
    let _ = add(1, 2).delay("1s").await;
}

fn main() {}

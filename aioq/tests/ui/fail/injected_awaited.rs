use aioq::task;

struct Pool;

#[task]
async fn with_state(number: i64, #[inject] pool: &Pool) -> i64 {
    let _ = pool;
    number
}

async fn runs() {
    let _ = with_state(1).await;
}

fn main() {}

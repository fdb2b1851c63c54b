use aioq::{Context, task};

struct Pool;

#[task]
async fn context(ctx: &Context) {
    let _ = ctx;
}

#[task]
async fn owned_context(ctx: Context) {
    let _ = ctx;
}

#[task]
async fn pool(pool: &Pool) {
    let _ = pool;
}

#[task]
fn blocking(pool: &Pool) {
    let _ = pool;
}

fn main() {}

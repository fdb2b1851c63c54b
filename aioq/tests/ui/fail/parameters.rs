#![allow(unused)]

mod borrowed_inside {
    use aioq::task;

    use std::borrow::Cow;
    use std::path::Path;

    #[task]
    async fn greet(name: Option<&str>, paths: &[&Path], both: (&str, u8), cow: Cow<'_, str>) {}
}

mod cfg_parameter {
    use aioq::task;

    #[task]
    async fn greet(#[cfg(unix)] name: String) {}
}

mod impl_trait_argument {
    use aioq::task;

    #[task]
    async fn sum(numbers: impl Iterator<Item = u8>) {}
}

mod inject_and_default {
    use aioq::task;

    #[task]
    async fn send(#[inject] #[default] mailer: u8) {}

    #[task]
    async fn twice(#[inject] #[inject] mailer: u8, #[default] #[default] other: u8, #[default = 5] third: u8) {}
}

mod inject_mut {
    use aioq::task;

    struct Mailer;

    #[task]
    async fn send(#[inject] mailer: &mut Mailer) {}
}

mod inject_unsized {
    use aioq::task;

    trait Mail: Send + Sync {}

    #[task]
    async fn send(#[inject] mailer: &dyn Mail, #[inject] name: &str, #[inject] other: &'static u8) {}
}

mod mut_reference {
    use aioq::task;

    #[task]
    async fn push(items: &mut Vec<u8>, name: &mut str) {}
}

mod pattern_argument {
    use aioq::task;

    #[task]
    async fn swap((a, b): (u8, u8)) {}

    #[task]
    async fn unnamed(_: u8) {}
}

mod static_reference {
    use aioq::task;

    #[task]
    async fn greet(name: &'static str) {}
}

fn main() {}

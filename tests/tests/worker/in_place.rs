//! Jobs that run in the process that kicks them.

use aioq::ErrorKind;
use aioq_tests::on_each_backend;

use crate::bodies::parse;
use crate::probed;
use crate::results::parent;

on_each_backend! {
    async fn jobs_run_in_place_when_asked_to(bed: Bed) {
        let client = probed(&bed).0.in_place().await.unwrap();
        let handle = client.kiq(parent(3)).await.unwrap();
        let child = handle.get_result().await.unwrap();
        assert_eq!(client.handle::<i64>(child).await.unwrap().get_result().await.unwrap(), 6);
        let failed = client.kiq(parse("seven")).await.unwrap();
        assert_eq!(failed.get_result().await.unwrap_err().kind(), ErrorKind::JobFailed);
    }
}

//! The process as its operating system sees it, by the names that Prometheus gives these metrics. Only on Linux.

#[cfg(target_os = "linux")]
use procfs::process::{LimitValue, Process};
#[cfg(target_os = "linux")]
use procfs::{ProcResult, boot_time_secs, page_size, ticks_per_second};

#[cfg(target_os = "linux")]
use super::metric::Metric;

/// Sets the metrics of the process. What cannot be read is NaN, so that nothing old looks current.
#[cfg(target_os = "linux")]
pub(super) fn measure() {
    if read().is_err() {
        for gauge in [Metric::ResidentMemory, Metric::OpenFds, Metric::MaxFds, Metric::StartTime] {
            gauge.set(f64::NAN, []);
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn measure() {}

#[cfg(target_os = "linux")]
fn read() -> ProcResult<()> {
    let process = Process::myself()?;
    let (stat, ticks) = (process.stat()?, ticks_per_second());
    Metric::ResidentMemory.set((stat.rss * page_size()) as f64, []);
    Metric::CpuSeconds.total((stat.utime + stat.stime) / ticks);
    Metric::StartTime.set(boot_time_secs()? as f64 + stat.starttime as f64 / ticks as f64, []);
    Metric::OpenFds.set(process.fd_count()? as f64, []);
    let most = match process.limits()?.max_open_files.soft_limit {
        LimitValue::Value(most) => most as f64,
        LimitValue::Unlimited => f64::INFINITY,
    };
    Metric::MaxFds.set(most, []);
    Ok(())
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::fs::File;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn the_process_is_measured_as_it_is() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let value = |name: &str| -> f64 {
            metrics::with_local_recorder(&recorder, measure);
            let page = recorder.handle().render();
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
        };
        let before = value("process_open_fds");
        let files: Vec<File> = (0..500).map(|_| File::open("/proc/self/stat").unwrap()).collect();
        let with_files = value("process_open_fds");
        drop(files);
        // Other tests of this process open and close files too.
        assert!(with_files >= before + 300.0, "{before}, then {with_files}");
        assert!(value("process_max_fds") >= with_files);
        let memory = value("process_resident_memory_bytes");
        assert!((1e6..1e11).contains(&memory), "{memory}");
        let started = value("process_start_time_seconds");
        let now = crate::schedule::now_millis() as f64 / 1_000.0;
        assert!(now - started < 24.0 * 3_600.0 && started <= now + 2.0, "{started}, now {now}");
        assert!(value("process_cpu_seconds_total") < 24.0 * 3_600.0);
    }
}

//! Prometheus text.

/// Where metrics are written while a page is made.
pub struct Page<'a> {
    _encoder: prometheus_client::encoding::DescriptorEncoder<'a>,
}

/// Label names and values of one line.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page<'_> {
    /// Writes a counter; its name without `_total`.
    pub fn counter(&mut self, _name: &str, _help: &str, _lines: &[(Labels<'_>, u64)]) -> std::fmt::Result {
        unimplemented!()
    }

    /// Writes a gauge.
    pub fn gauge(&mut self, _name: &str, _help: &str, _lines: &[(Labels<'_>, f64)]) -> std::fmt::Result {
        unimplemented!()
    }
}

"""ChartInsight Studio: a research notebook platform for stock markets, the Korean one first."""

__version__ = "0.1.0"

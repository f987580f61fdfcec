"""Carbon dioxide at Mauna Loa: how much, how fast, and the planet's breath.

    caesarion run examples/analysis.py --file examples/co2.csv --out plots
"""

import matplotlib.pyplot as plt
import pandas as pd

data = pd.read_csv("co2.csv")
data["date"] = pd.to_datetime(data[["year", "month"]].assign(day=15))
series = data.set_index("date")["co2_ppm"].resample("MS").mean().interpolate()

# Twelve months' mean takes the seasons out; what is left of each month is the season.
trend = series.rolling(12, center=True).mean()
season = (series - trend).groupby(series.index.month).mean()

yearly = series.resample("YS").mean()
decades = pd.DataFrame(
    {
        "mean ppm": series.groupby(series.index.year // 10 * 10).mean().round(1),
        "rise ppm/year": yearly.diff().groupby(yearly.index.year // 10 * 10).mean().round(2),
    }
).rename_axis("decade")

print(f"{len(data)} months, {series.index[0]:%B %Y} to {series.index[-1]:%B %Y}")
print(decades)
print(f"\nHighest in month {season.idxmax()}, lowest in month {season.idxmin()}: {season.max() - season.min():.1f} ppm apart")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=[2, 1])
left.plot(series.index, series, linewidth=0.7, label="monthly")
left.plot(trend.index, trend, label="12 months' mean")
left.set(title="CO₂ at Mauna Loa", ylabel="ppm")
left.legend()
right.bar(season.index, season)
right.set(title="Season", xlabel="month", ylabel="ppm from trend", xticks=range(1, 13))
figure.tight_layout()
plt.show()

# -*- coding: utf-8 -*-
# Plot of: co2/"x"

# %% [markdown]
# > Plot **co2.csv**
# >
# > > quoted
# >
# > 1. one
# >

# %% [markdown]
# I plot it: $x^2$ & <b>

# %%
import pandas as pd
df = pd.read_csv('x')
df

# %% [markdown]
# `get_current_weather({"latitude":52.52})`
#
# ```json
# {"t":11.5}
# ```

# %% [markdown]
# `list_files()`
#
# ```text
# no `sandbox`
# ```

# %% [markdown]
# # My heading
#
# A note with ``` a fence ```

# %%
1/0

# %%
x = 'a' * 10**12

# %%


# %%
# !pip install x
# %matplotlib inline
if True:
    pass
    # !ls
s = '''
!not shell
'''
# files = !ls
# df.head?

# %%
# %%bash
# echo 'hi
# ls

# %%
# %%time
x = 1

"""Several forms of rich output; --out saves each as a file.

    caesarion run examples/pictures.py --out plots
"""

import altair as alt
import matplotlib.pyplot as plt
import networkx as nx
import pandas as pd
from IPython.display import HTML, SVG, display

graph = nx.karate_club_graph()
plt.figure(figsize=(5, 5))
nx.draw_kamada_kawai(graph, node_size=60, node_color=[graph.degree[n] for n in graph])
plt.title("Zachary's karate club")
plt.show()

circles = "".join(f'<circle cx="60" cy="60" r="{r}" fill="none" stroke="teal"/>' for r in range(5, 60, 6))
display(SVG(f'<svg xmlns="http://www.w3.org/2000/svg" width="120" height="120">{circles}</svg>'))

display(HTML("<h1>Seven</h1><p>" + " ".join(f"{n}&times;7={n * 7}" for n in range(1, 11)) + "</p>"))

degrees = pd.DataFrame(graph.degree, columns=["member", "friends"])
alt.Chart(degrees, title="Friends of each member").mark_bar().encode(alt.X("member:O"), alt.Y("friends"))

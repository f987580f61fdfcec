"""Makes matplotlib look for a missing glyph in the image's CJK fonts at last.

Its own way, a list in font.family, is lost as soon as somebody sets a family
(seaborn.set_theme does): then every Chinese, Japanese or Korean character is a
warning and a box. So the two fonts are added behind whatever families are set.

Usage: python3 fontfallback.py .../matplotlib/font_manager.py
"""

import pathlib
import sys

# In regular weight whatever the text's, because a list of families in which one
# has no bold face makes matplotlib complain about every bold title.
PATCH = """\
        if fontext == 'ttf' and directory is None:  # Caesarion: see fontfallback.py
            for family in ('Droid Sans Fallback', 'NanumGothic'):
                fpath = self.findfont(
                    FontProperties(family=[family], weight=400), fontext)
                if fpath not in fpaths:
                    fpaths.append(fpath)

"""

file = pathlib.Path(sys.argv[1])
text = file.read_text()
# A release that has changed this function fails here, and so the build.
start = text.index("    def _find_fonts_by_props(")
end = text.index("        return fpaths\n", start)
file.write_text(text[:end] + PATCH + text[end:])

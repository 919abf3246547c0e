"""The command line: ``featviz render efficientnet_lite0 "class:285" -o cat.png``."""
